package scenarios_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/steps"
)

// The limits that the tests come to.
const (
	maxFile     = 1 << 20
	maxIncluded = 8
	maxMistakes = 20
	maxSteps    = 50_000
)

// list is a YAML list of n values.
func list(value string, n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(value+",", n), ",") + "]"
}

// bombs are small files that come to much, with the error that they must give.
var bombs = map[string]struct{ text, want string }{
	"variables": {
		"name: x\nvars: {a: " + strings.Repeat("a", 400<<10) + "}\nsteps:\n" + strings.Repeat("- sleep: {for: 1s, why: \"${a}\"}\n", 10000),
		"this file comes to more than 16 MiB of text",
	},
	"a variable often in one value": {
		"name: x\nvars: {a: " + strings.Repeat("a", 400<<10) + "}\nsteps:\n- sleep: {for: 1s, why: \"" + strings.Repeat("${a}", 100000) + "\"}\n",
		"f.yaml:4:25: this file comes to more than 16 MiB of text",
	},
	"a matrix of values": {
		"name: x\nmatrix: {a: " + list("1", 1000) + "}\nsteps:\n" + strings.Repeat("- sleep: {for: 1s, why: w}\n", 10000),
		"this file comes to more than",
	},
	"a matrix of combinations": {
		"name: x\nmatrix: {a: " + list("1", 1000) + ", b: " + list("1", 1000) + "}\nsteps: []",
		"f.yaml:1:1: the matrix has more than 1000 combinations",
	},
	"a matrix of names": {
		"name: x\nmatrix: {" + names(20000, "n%d: [1]") + "}\nsteps: []",
		"f.yaml:1:1: the matrix has more than 64 names",
	},
	"a matrix with a long name": {
		"name: " + strings.Repeat("n", 900<<10) + "\nmatrix: {a: " + list("1", 1000) + "}\nsteps: [sleep: {for: 1s, why: w}]",
		"this file comes to more than 16 MiB of text",
	},
	"documents": {
		strings.Repeat("name: x\nsteps: [sleep: {for: 1s, why: w}, nothing: 1]\n---\n", 15000),
		`unknown key "nothing"`,
	},
	"unknown keys": {
		"name: x\nsteps: []\n" + names(50000, "k%d: 1\n"),
		"more than 20 mistakes: the rest is not read",
	},
	"unknown names": {
		"name: x\nsteps:\n" + strings.Repeat("- poll: {enclave: e}\n", 40000),
		"more than 20 mistakes: the rest is not checked",
	},
	"unknown variables": {
		"name: x\nsteps:\n" + strings.Repeat("- poll: {enclave: \"${e}\"}\n", 30000),
		"more than 20 mistakes",
	},
	"aliases of aliases": {
		"name: x\nvars:\n  a: &a [x,x,x,x,x,x,x,x,x]\n  b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n  d: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nsteps: []",
		"want text, not a list",
	},
	"merged aliases": {
		"name: x\nsteps:\n- sleep: &a {for: 1s, why: w}\n- sleep: {<<: *a}\n",
		`unknown key "<<"`,
	},
	"branches": {
		"name: x\nsteps: [parallel: {" + names(5000, "b%d: [sleep: {for: 1s, why: w}]") + "}]",
		"f.yaml:2:9: the scenario has more than 1000 branches",
	},
	"branches in branches": {
		"name: x\nsteps: " + strings.Repeat("[parallel: {b: ", 100) + "[]" + strings.Repeat("}]", 100),
		"nested too deep",
	},
	"a regular expression of repetitions": {
		"name: x\nsteps:\n- seen: {regexp: \"((a{30}){20}b)*\"}\n- seen: {regexp: \"(a{1,30}){1,30}(b{1,30}){1,33}\"}\n",
		`f.yaml:4:3: the regular expression "(a{1,30}){1,30}(b{1,30}){1,33}" comes to some`,
	},
	"a long regular expression": {
		"name: x\nsteps:\n- seen: {regexp: " + strings.Repeat("a", 20<<10) + "}\n",
		"f.yaml:3:3: a regular expression of 20480 bytes: the longest has 16384",
	},
	"many regular expressions": {
		"name: x\nsteps:\n" + strings.Repeat("- seen: {regexp: \"a{900}\"}\n", 1000),
		"the regular expressions of this file come to more than 100000 instructions",
	},
	"calls":            {"name: x\nsteps:\n- create: {enclave: e}\n- add_cpu: {enclave: e, count: 2000000000}\n", "f.yaml:4:32: 2000000000 is too large: give at most 4096"},
	"CPUs":             {"name: x\ninstance: {cpus: 2000000000}\nsteps: []", "f.yaml:2:18: 2000000000 is too large: give at most 4096"},
	"slots":            {"name: x\ninstance: {slots: 2000000000}\nsteps: []", "is too large: give at most 4096"},
	"interrupts":       {"name: x\nfaults: [{at: event, do: storm, times: 2000000000}]\nsteps: []", "is too large: give at most 10000"},
	"bytes to send":    {"name: x\nsteps:\n- dial: {as: c, port: 1}\n- send: {on: c, size: 100G}\n", "f.yaml:4:3: size 107374182400 is too large: send at most 67108864 bytes"},
	"bytes to receive": {"name: x\nsteps:\n- dial: {as: c, port: 1}\n- expect: {on: c, size: 100G}\n", "f.yaml:4:3: size 107374182400 is too large: expect at most 67108864 bytes"},
	"a console": {
		"name: x\nengines: [scripted]\nsteps:\n- run: {enclave: e, does: {console: [{text: " + strings.Repeat("t", 10000) + ", times: 10000}]}}\n",
		"f.yaml:4:3: the enclave's console has more than 16 MiB",
	},
	"time": {"name: x\ntimeout: 2000000h\nsteps: []", "f.yaml:2:10: want a duration"},
}

// names joins n texts with a number each.
func names(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	if strings.HasSuffix(format, "\n") {
		return strings.Join(all, "")
	}
	return strings.Join(all, ", ")
}

func TestAFileThatComesToTooMuchIsRefusedWithItsPlace(t *testing.T) {
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			require.LessOrEqual(t, len(bomb.text), maxFile, "as bombs go this is small")
			all, err := steps.Language.Parse("f.yaml", []byte(bomb.text))
			require.Empty(t, all)
			require.ErrorContains(t, err, bomb.want)
			lines := strings.Split(err.Error(), "\n")
			require.LessOrEqual(t, len(lines), 2*maxMistakes+1)
			for _, line := range lines {
				require.Regexp(t, `^f\.yaml:\d+:\d+: `, line)
				require.Less(t, len(line), 2000)
			}
		})
	}
}

// branching are files of which each includes the next ten times.
func branching(last string) fstest.MapFS {
	files := fstest.MapFS{"main.yaml": {Data: []byte("name: x\nsteps:\n" + strings.Repeat("- include: 1.yaml\n", 10))}}
	for i := 1; i < maxIncluded; i++ {
		files[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{Data: []byte(strings.Repeat(fmt.Sprintf("- include: %d.yaml\n", i+1), 10))}
	}
	files[fmt.Sprintf("%d.yaml", maxIncluded)] = &fstest.MapFile{Data: []byte(last)}
	return files
}

func TestIncludesThatBranchAreBoundedByWhatTheyComeTo(t *testing.T) {
	itself := fstest.MapFS{
		"main.yaml": {Data: []byte("name: x\nsteps:\n- include: self.yaml\n")},
		"self.yaml": {Data: []byte(strings.Repeat("- include: self.yaml\n", 10))},
	}
	for name, test := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"steps":          {branching("- sleep: {for: 1s, why: w}\n"), "this file includes more than 10000 files"},
		"nothing":        {branching(""), "this file includes more than 10000 files"},
		"blanks":         {branching(strings.Repeat("# nothing\n", 50000)), "this file comes to more than 16 MiB of text"},
		"mistakes":       {branching("- nothing: {}\n"), "more than 20 mistakes"},
		"itself":         {itself, "self.yaml includes itself, or includes nest deeper than 8 files"},
		"no YAML at all": {branching("["), "invalid YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := steps.Language.ParseFS(t.Context(), test.files, "main.yaml")
			require.ErrorContains(t, err, test.want)
			require.Less(t, len(err.Error()), 1<<20)
			require.Regexp(t, `^\w+\.yaml:\d+:\d+: `, err.Error())
		})
	}
}

func TestReadingAFileEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	files := &opened{FS: branching("- sleep: {for: 1s, why: w}\n"), at: 20, do: cancel}
	_, err := steps.Language.ParseFS(ctx, files, "main.yaml")
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, files.count, 5000, "of 10000 that it would read")
}

// opened counts the files that are opened, and does something at one.
type opened struct {
	fs.FS
	count, at int
	do        func()
}

func (o *opened) Open(name string) (fs.File, error) {
	if o.count++; o.count == o.at {
		o.do()
	}
	return o.FS.Open(name)
}

func FuzzIncludes(f *testing.F) {
	f.Add([]byte("name: x\nvars: {a: b}\nsteps:\n- include: one.yaml\n"), []byte("- include: two.yaml\n- include: two.yaml\n"), []byte("- sleep: {for: 1s, why: \"${a}\"}\n"))
	f.Add([]byte("name: x\nmatrix: {a: [one, two]}\nsteps:\n- include: ${a}.yaml\n"), []byte("- include: one.yaml\n"), []byte("[]"))
	f.Add([]byte("name: x\nsteps:\n- parallel: {a: [include: one.yaml], b: [include: two.yaml]}\n"), []byte("- run: {enclave: e}\n- include: ../f\n"), []byte("- poll: {enclave: e}"))
	f.Fuzz(func(t *testing.T, main, one, two []byte) {
		files := fstest.MapFS{"main.yaml": {Data: main}, "one.yaml": {Data: one}, "two.yaml": {Data: two}}
		all, err := steps.Language.ParseFS(t.Context(), files, "main.yaml")
		if err != nil {
			require.Empty(t, all)
			var place *scenarios.Error
			require.True(t, errors.As(err, &place), err)
			require.Contains(t, slices.Collect(maps.Keys(files)), place.File)
			return
		}
		n := 0
		for _, s := range all {
			n += len(s.Steps)
		}
		require.LessOrEqual(t, n, maxSteps)
	})
}
