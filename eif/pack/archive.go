package pack

import (
	"context"
	"fmt"
	"io"
	"os"
)

// WriteArchive writes entries as a cpio archive that the kernel unpacks as its first root directory. Missing parent
// directories are made; the same entries give the same bytes.
func WriteArchive(ctx context.Context, w io.Writer, entries []Entry) error {
	t, err := newTree(entries)
	if err != nil {
		return err
	}
	return t.write(ctx, w)
}

// FolderEntries lists what is below a folder, as FromFolder takes it, for WriteArchive.
func FolderEntries(ctx context.Context, dir string) ([]Entry, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, plain(err)
	}
	// Not closed here: the entries read from it later, and it closes itself when they are gone.
	entries, err := scan(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("pack folder %s: %w", dir, err)
	}
	return entries, nil
}
