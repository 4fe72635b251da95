package suggest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearest(t *testing.T) {
	known := []string{"run", "create", "heartbeat"}
	for word, want := range map[string]string{
		"hearbeat": "heartbeat", "craete": "create", "run": "run", "rum": "run",
		"terminate": "", "": "", strings.Repeat("x", 1000): "",
	} {
		require.Equal(t, want, Nearest(word, known), "%.20q", word)
	}
	require.Empty(t, Nearest("run", nil))
}
