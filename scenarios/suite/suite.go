// Package suite is the scenarios that come with nesim: every command and every error code of the NE driver, every way in
// which an enclave can end, and what people have reported from the field.
package suite

import (
	"context"
	"embed"
	"errors"
	"path"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/steps"
)

//go:embed *.yaml _cycle.yaml
var files embed.FS

// Load reads all of them. Their files are named suite/....
func Load() (all []*scenarios.Scenario, err error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, entry := range entries {
		if entry.Name()[0] == '_' {
			continue
		}
		some, err := steps.Language.ParseFS(context.Background(), files, entry.Name())
		for _, s := range some {
			s.File = path.Join("suite", s.File)
		}
		all, errs = append(all, some...), append(errs, err)
	}
	return all, errors.Join(errs...)
}
