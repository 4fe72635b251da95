package setup

import (
	_ "embed"
	"strings"
)

//go:embed features.modules
var featureList string

// FeatureModules names the modules by which Debian's kernel gets the features that the one shaped as AWS's has built
// in. fetch.sh unpacks those of the same list.
func FeatureModules() (names []string) {
	for line := range strings.Lines(featureList) {
		line, _, _ = strings.Cut(line, "#")
		names = append(names, strings.Fields(line)...)
	}
	return names
}
