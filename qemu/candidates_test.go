package qemu

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAKVMThatFailedIsNotTriedAgain(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	kvmDevice = "/dev/null"
	t.Cleanup(func() { kvmDevice = "/dev/kvm" })
	const binary = "/bin/sh"
	accels, err := Auto.Candidates(binary)
	require.NoError(t, err)
	require.Equal(t, []Accel{KVM, TCG}, accels)
	RecordKVMFailure(binary, "for a reason")
	accels, err = Auto.Candidates(binary)
	require.NoError(t, err)
	require.Equal(t, []Accel{TCG}, accels)

	require.True(t, KVMFailed("KVM internal error. Suberror: 1"))
	require.True(t, KVMFailed("error: kvm run failed Bad address"))
	require.False(t, KVMFailed("kvm: warning"))
}
