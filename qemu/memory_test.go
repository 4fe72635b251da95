package qemu

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatQEMUTakesIsReadFromItsStatus(t *testing.T) {
	n, err := residentAnonymous([]byte("Name:\tqemu\nVmRSS:\t  235656 kB\nRssAnon:\t   96972 kB\nRssFile:\t   25468 kB\n"))
	require.NoError(t, err)
	require.EqualValues(t, 96972<<10, n)
	for _, status := range []string{"", "Name:\tqemu\nState:\tZ (zombie)\n", "RssAnon:\tmuch kB\n", "RssAnon:\n"} {
		_, err := residentAnonymous([]byte(status))
		require.Error(t, err, status)
	}
}
