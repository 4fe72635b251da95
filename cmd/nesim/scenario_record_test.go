package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheSessionsOfADaemonAreRecordedReplayedAndPlayed(t *testing.T) {
	u := newUser(t)
	dir := t.TempDir()
	recording, scenario := filepath.Join(dir, "session"), filepath.Join(dir, "session.yaml")
	u.serve("--accel", "tcg", "--record", recording)
	u.runHello("--enclave-cid", "16")
	u.ask("16", "panic")
	u.wait("hello")
	out, errs, err := u.run("", "parent", "--accel", "tcg", "--exec", "true") // a driver of Linux's, on the same device
	require.NoError(t, err, out+errs)
	u.must("shutdown")
	text, err := os.ReadFile(recording)
	require.NoError(t, err)
	for _, told := range []string{`"session":1,"what":"ENCLAVE_START"`, `"session":1,"what":"SLOT_INFO"`, `"session":2,"what":"attached"`, `"session":2,"what":"detached"`} {
		require.Contains(t, string(text), told)
	}
	require.Contains(t, u.must("scenario", "replay", recording, "--scenario", scenario), "no difference")
	require.Contains(t, u.must("scenario", "run", scenario), "1 passed, 0 failed")
}

func TestARecordingThatCannotBeMadeIsToldBeforeTheDaemonServes(t *testing.T) {
	u := newUser(t)
	told := u.refused("serve", "--record", filepath.Join(t.TempDir(), "none", "session"))
	require.True(t, strings.HasSuffix(told, "no such file or directory"), told)
}
