package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryCommandIsAnsweredByALine(t *testing.T) {
	t.Setenv("GREETING", "hi there")
	const unknown = "error: commands are env, attest [NONCE], exit N, crash, panic, poweroff, reboot, triple-fault, hang"
	for line, want := range map[string]struct {
		answer string
		acts   bool
	}{
		"exit 3":       {"exiting with code 3", true},
		"exit 256":     {"error: exit wants a code from 0 to 255", false},
		"exit":         {"error: exit wants a code from 0 to 255", false},
		"crash\r":      {"crashing", true},
		"panic":        {"panicking the kernel", true},
		"hang":         {"hanging", true},
		"poweroff":     {"powering off", true},
		"reboot":       {"rebooting", true},
		"triple-fault": {"faulting", true},
		"":             {unknown, false},
		"resume":       {unknown, false},
	} {
		answer, act := command(line)
		require.Equal(t, want.answer, answer, "%q", line)
		require.Equal(t, want.acts, act != nil, "%q", line)
	}
	answer, act := command("env")
	require.Contains(t, answer, "GREETING=hi there")
	require.Nil(t, act)
}
