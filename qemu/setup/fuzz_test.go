package setup

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzReadRelease(f *testing.F) {
	f.Add([]byte(bzImage("6.12.1")))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, image []byte) {
		release, err := readRelease(strings.NewReader(string(image)))
		require.Equal(t, err != nil, release == "")
		require.Len(t, strings.Fields(release+"x"), 1)
	})
}

func FuzzLoadOrder(f *testing.F) {
	f.Add("b.ko: a.ko\na.ko:\n", "b")
	f.Add("../x.ko: /y.ko\n", "x")
	f.Fuzz(func(t *testing.T, dep, name string) {
		order, err := loadOrder(dep, []string{name})
		if err != nil {
			return
		}
		for _, file := range order {
			require.True(t, filepath.IsLocal(file))
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add("QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)\n")
	f.Add("QEMU emulator version 10.2\n")
	f.Fuzz(func(t *testing.T, line string) {
		if v, err := parseVersion(line); err == nil {
			again, err := parseVersion("QEMU emulator version " + v.String())
			require.NoError(t, err)
			require.Equal(t, v, again)
		}
	})
}
