package child

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAProgramEndsWithItsOutputRead(t *testing.T) {
	var out strings.Builder
	p, err := Start("sh", []string{"-c", "echo hello; exit 3"}, nil, &out, io.Discard)
	require.NoError(t, err)
	<-p.Done()
	require.Equal(t, "hello\n", out.String())
	require.Equal(t, 3, p.State().ExitCode())
	p.Kill() // harmless
}

func TestWhatAProgramStartedEndsWithIt(t *testing.T) {
	var out strings.Builder
	p, err := Start("sh", []string{"-c", "sleep 1000 & echo; exit"}, nil, &out, io.Discard)
	require.NoError(t, err)
	<-p.Done() // the sleeper held the output open
	require.Eventually(t, func() bool { return unix.Kill(-p.PID(), 0) == unix.ESRCH }, 10*time.Second, 10*time.Millisecond)
}

func TestAKilledProgramIsReaped(t *testing.T) {
	p, err := Start("sleep", []string{"1000"}, nil, io.Discard, io.Discard)
	require.NoError(t, err)
	p.Kill()
	<-p.Done()
	require.Equal(t, syscall.SIGKILL, p.State().Sys().(syscall.WaitStatus).Signal())
}

func TestAProgramThatIsMissingIsAnError(t *testing.T) {
	_, err := Start("/nonexistent", nil, nil, io.Discard, io.Discard)
	require.ErrorContains(t, err, "/nonexistent")
}
