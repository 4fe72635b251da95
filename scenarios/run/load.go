package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nesim/nesim/internal/files"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/steps"
)

// Load reads the scenarios of files and folders. A folder stands for all .yaml and .yml files in it and below, in the order
// of their names, but for those whose names begin with _: they are parts for others to include. The error joins those of
// all files; when ctx is done it is the context's.
func Load(ctx context.Context, paths ...string) (all []*scenarios.Scenario, err error) {
	var errs []error
	for _, path := range paths {
		files, err := filesOf(path)
		errs = append(errs, err)
		for _, file := range files {
			some, err := steps.Language.ParseFS(ctx, local{ctx}, file)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			all, errs = append(all, some...), append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

func filesOf(path string) (files []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), "_") {
			return err
		}
		if slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(file)) {
			files = append(files, file)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no .yaml file is in this folder", path)
	}
	return files, err
}

// local is this machine's files, by any path.
type local struct{ ctx context.Context }

// Open implements fs.FS.
func (l local) Open(name string) (fs.File, error) { return files.Open(l.ctx, name) }
