package pack

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// controllersOfV1 are the cgroup controllers that a kernel may have for version 2 alone (Linux 6.12 and later: init/Kconfig),
// by the option for version 1.
var controllersOfV1 = []struct{ option, name string }{{"CONFIG_CPUSETS_V1", "cpuset"}, {"CONFIG_MEMCG_V1", "memory"}}

// DisableCgroups appends to the command line the word by which the kernel names no controller in /proc/cgroups that it has,
// by its configuration, for version 2 alone: an init like AWS's mounts each as of version 1, and ends where that fails.
// It returns the word, or "" where the kernel needs none or the command line has one.
func (s *Spec) DisableCgroups(config string) (word string, err error) {
	f, err := openRegular(config)
	if err != nil {
		return "", fmt.Errorf("kernel configuration: %w", err)
	}
	defer f.Close()
	var off []string
	for lines := bufio.NewScanner(io.LimitReader(f, maxConfigSize)); lines.Scan(); {
		for _, c := range controllersOfV1 {
			if lines.Text() == "# "+c.option+" is not set" {
				off = append(off, c.name)
			}
		}
	}
	if s.Cmdline == "" {
		s.Cmdline = DefaultCmdline
	}
	if len(off) == 0 || strings.Contains(s.Cmdline, "cgroup_disable=") {
		return "", nil
	}
	slices.Sort(off)
	word = "cgroup_disable=" + strings.Join(off, ",")
	s.Cmdline += " " + word
	return word, nil
}
