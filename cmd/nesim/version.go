package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The version and the commit that the Makefile builds, by -ldflags -X. Empty in other builds, which may have build info.
var release, commit string

// buildInfo is what `nesim version --json` prints.
type buildInfo struct {
	Version string `json:"Version"`
	Commit  string `json:"Commit"`
	Go      string `json:"Go"`
}

func readBuild() buildInfo {
	b := buildInfo{Version: version(), Commit: commit, Go: fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)}
	if b.Commit == "" {
		b.Commit = setting("vcs.revision")
	}
	if b.Commit == "" {
		b.Commit = "unknown"
	}
	return b
}

func (b buildInfo) String() string {
	return fmt.Sprintf("nesim %s (commit %s, %s)", b.Version, b.Commit, b.Go)
}

// version is the program's version: the Makefile's, else that of the module, as go install has it.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

// setting reads a setting of the build info, "" where there is none.
func setting(key string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuild()
			return showAlways(cmd, b, func(p *printer) { p.line(b.String()) })
		},
	}
}
