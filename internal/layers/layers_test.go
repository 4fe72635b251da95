// Package layers holds the packages' imports to the picture in docs/architecture.md.
package layers

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/nesim/nesim/"

// layers are the top-level folders from the bottom up. A package imports its own folder and those below it.
var layers = [][]string{
	{"internal"},
	{"eif", "pcidev", "qemu", "attest"},
	{"sim"},
	{"scenarios"},
	{"cmd"},
}

// allowed are imports between the folders of one layer.
var allowed = map[string][]string{
	"attest": {"eif"}, // the NSM's PCRs are an image's measurements
}

// hypervisorSide are the packages that play the Nitro Hypervisor. They know nothing of what runs on the parent: the two
// sides meet on the PCI socket and the vsock switch.
var hypervisorSide = []string{"sim/hypervisor", "sim/vmm", "sim/vsock"}

// parentSide are the packages that run on the parent.
var parentSide = []string{"sim/parent", "sim/nedriver", "sim/primary"}

// imports maps each package to what it imports of this module, without tests.
func imports(t *testing.T) map[string][]string {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	all := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name, ours := strings.CutPrefix(words[0], module)
		require.True(t, ours, words[0])
		all[name] = nil
		for _, word := range words[1:] {
			if path, ours := strings.CutPrefix(word, module); ours {
				all[name] = append(all[name], path)
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

func folder(path string) string {
	top, _, _ := strings.Cut(path, "/")
	return top
}

func layer(t *testing.T, path string) int {
	n := slices.IndexFunc(layers, func(folders []string) bool { return slices.Contains(folders, folder(path)) })
	require.GreaterOrEqual(t, n, 0, "%s is in no layer: add it here and to docs/architecture.md", path)
	return n
}

func TestPackagesImportOnlyWhatIsBelowThem(t *testing.T) {
	for from, paths := range imports(t) {
		for _, to := range paths {
			switch above, below := layer(t, from), layer(t, to); {
			case folder(from) == folder(to), above > below:
			case above == below && slices.Contains(allowed[folder(from)], folder(to)):
			default:
				t.Errorf("%s imports %s, which is not below it", from, to)
			}
		}
	}
}

func TestTheHypervisorsSideDoesNotImportTheParents(t *testing.T) {
	for from, paths := range imports(t) {
		for _, to := range paths {
			if slices.Contains(hypervisorSide, from) && slices.Contains(parentSide, to) {
				t.Errorf("%s is on the hypervisor's side, and %s on the parent's", from, to)
			}
		}
	}
}
