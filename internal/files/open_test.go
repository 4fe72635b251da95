package files

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAPipeThatNobodyWritesToIsReadUntilTheContextEnds(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan error)
	go func() {
		_, err := Open(ctx, fifo)
		opened <- err
	}()
	cancel()
	require.ErrorIs(t, <-opened, context.Canceled)

	ctx, cancel = context.WithCancel(t.Context())
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
	require.NoError(t, err)
	defer writer.Close()
	f, err := Open(ctx, fifo)
	require.NoError(t, err)
	defer f.Close()
	_, err = io.WriteString(writer, "some")
	require.NoError(t, err)
	read := make(chan error)
	go func() {
		_, err := io.ReadAll(f)
		read <- err
	}()
	cancel()
	require.ErrorIs(t, <-read, os.ErrDeadlineExceeded)
	_, err = Open(t.Context(), t.TempDir())
	require.ErrorIs(t, err, unix.EISDIR)
}
