package scenarios_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios/steps"
)

// The manual's tables stand between <!-- table: NAME --> and <!-- end -->. NESIM_UPDATE=1 writes them anew.
func TestTheManualHasTheTablesOfTheLanguage(t *testing.T) {
	const manual = "README.md"
	text, err := os.ReadFile(manual)
	require.NoError(t, err)
	updated := string(text)
	for name, table := range steps.Language.Tables() {
		place := regexp.MustCompile(`(?s)(<!-- table: ` + name + ` -->\n).*?(<!-- end -->\n)`)
		require.Regexp(t, place, updated, "the manual has no place for the table %q", name)
		updated = place.ReplaceAllStringFunc(updated, func(old string) string {
			parts := place.FindStringSubmatch(old)
			return parts[1] + table + parts[2]
		})
	}
	if os.Getenv("NESIM_UPDATE") != "" {
		require.NoError(t, os.WriteFile(manual, []byte(updated), 0o644))
		return
	}
	require.Equal(t, updated, string(text), "the manual is old: run NESIM_UPDATE=1 go test ./scenarios")
}
