package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/errcode"
)

func FuzzRunConfig(f *testing.F) {
	f.Add([]byte(`{"eif_path":"/a.eif","memory_mib":256,"cpu_count":2,"enclave_cid":16,"enclave_name":"a","debug_mode":true}`))
	f.Add([]byte(`{"eif_path":"","memory_mib":18446744073709551615,"cpu_ids":[4294967295],"attach_console":true}`))
	f.Add([]byte(`{"eif_path":null,"cpu_count":-5}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c runConfig
		if err := c.parse(raw); err != nil {
			require.NotZero(t, errcode.Of(err))
			return
		}
		spec := c.spec()
		require.GreaterOrEqual(t, spec.CPUCount, 0)
		_ = spec.Check()
	})
}
