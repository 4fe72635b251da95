package main

import (
	"bytes"
	"crypto/elliptic"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// everyCommand calls do for each command that people can see, groups too.
func everyCommand(t *testing.T, do func(t *testing.T, cmd *cobra.Command)) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.IsAvailableCommand() || cmd.Name() == "help" || !cmd.HasParent() {
			t.Run(cmd.CommandPath(), func(t *testing.T) { do(t, cmd) })
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root())
}

func TestTheHelpOfEveryCommandBeginsWithAVerb(t *testing.T) {
	verbs := regexp.MustCompile(`^(Accept|Boot|Build|Check|Compare|Connect|Create|Describe|Explain|Generate|Inspect|List|Merge|Print|Record|Replay|Run|` +
		`Serve|Sign|Simulate|Stop|Terminate|Verify|Wait|Write)\b`)
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		require.Regexp(t, verbs, cmd.Short)
		require.LessOrEqual(t, len(cmd.Short), 60)
		require.NotContains(t, ".:;", cmd.Short[len(cmd.Short)-1:])
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			require.NotEmpty(t, f.Usage, f.Name)
			require.NotRegexp(t, `^(and|its|the|a|an|of|that|as|such) |\n|\.$`, f.Usage, "--%s: its line stands alone, among others in the order of names", f.Name)
		})
	})
}

// dialect are turns of phrase that help does not use.
var dialect = regexp.MustCompile(`(?i)\b(tells?|told|parted by|in the place of|in the stead of|is meant|by itself|of your own|who wants|has not|is none|all else)\b`)

func TestHelpIsPlainEnglish(t *testing.T) {
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		require.NotRegexp(t, dialect, cmd.Short+"\n"+cmd.Long)
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { require.NotRegexp(t, dialect, f.Usage, f.Name) })
	})
}

func TestTheExamplesOfEveryCommandCanBeRun(t *testing.T) {
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		found := 0
		for line := range strings.Lines(strings.ReplaceAll(cmd.Example, "\\\n", " ")) {
			for _, words := range simpleCommands(line) {
				if words[0] != "nesim" {
					continue
				}
				args := foldCPUIDs(words[1:])
				top := root()
				called, rest, err := top.Find(args)
				require.NoError(t, err, line)
				require.NoError(t, called.ParseFlags(rest), line)
				require.NoError(t, called.ValidateArgs(called.Flags().Args()), line)
				require.NoError(t, checkFlags(called), line)
				if called.CommandPath() == cmd.CommandPath() || cmd.HasSubCommands() {
					found++
				}
			}
		}
		require.Positive(t, found, "the command has no example of itself")
	})
}

// simpleCommands takes the commands of a line of shell apart: their words, with quotes removed.
func simpleCommands(line string) (commands [][]string) {
	var words []string
	skip := false // the next word is a file's name
	add := func(word string) {
		if !skip {
			words = append(words, word)
		}
		skip = false
	}
	end := func() {
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for _, word := range regexp.MustCompile(`'[^']*'|[^\s|&<>;]+|[|&<>;]`).FindAllString(line, -1) {
		switch word {
		case "|", "&", ";":
			end()
		case "<", ">":
			skip = true
		default:
			add(strings.Trim(word, "'"))
		}
	}
	end()
	return commands
}

func TestEveryFlagAndArgumentIsCompleted(t *testing.T) {
	paths := make(map[string]bool)
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		paths[cmd.CommandPath()] = true
		if !cmd.HasSubCommands() {
			require.True(t, cmd.ValidArgsFunction != nil || len(cmd.ValidArgs) > 0)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			_, completed := cmd.GetFlagCompletionFunc(f.Name)
			completed = completed || f.Annotations[cobra.BashCompFilenameExt] != nil || f.Annotations[cobra.BashCompSubdirsInDir] != nil
			require.True(t, completed || f.NoOptDefVal != "" || f.Hidden && strings.HasPrefix(f.Name, "pcr"), "--%s: add it to flagCompletions", f.Name)
		})
	})
	for path := range argCompletions {
		require.True(t, paths[path], path)
	}
	for path := range examples {
		require.True(t, paths[path], path)
	}
	for path := range withoutJSON {
		require.True(t, paths[path], path)
	}
}

func TestEveryCommandWithJSONPrintsIt(t *testing.T) {
	u := newUser(t)
	two, dir := u.image("two.eif"), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	id := u.valid("signer", elliptic.P384())
	document := file("document")
	u.must("attest", "document", "--eif-path", two, "--output", document)
	shard := file("shard.json")
	u.must("scenario", "run", "--tags", "smoke", "--shard", "1/1", "--report", "json="+shard)
	recording := u.file("recording", nil)
	runs := map[string][]string{
		"nesim describe-enclaves": nil, "nesim terminate-enclave": {"--all"}, "nesim doctor": nil, "nesim version": nil,
		"nesim build-enclave": {"--rootfs", helloFolder(t, dir), "--output-file", file("built.eif")},
		"nesim describe-eif":  {two}, "nesim eif inspect": {two}, "nesim eif diff": {two, two}, "nesim eif extract": {two, "--output", file("parts")},
		"nesim sign-eif": {two, "--signing-certificate", id.certificate, "--private-key", id.key},
		"nesim pcr":      {"--input", two}, "nesim explain": {"E36"},
		"nesim attest verify": {document}, "nesim attest show": {document},
		"nesim scenario run": {"--tags", "smoke"}, "nesim scenario list": nil, "nesim scenario lint": nil,
		"nesim scenario merge": {shard}, "nesim scenario replay": {recording},
	}
	withEnclave := map[string]bool{"nesim run-enclave": true, "nesim wait-enclave": true} // tests of enclaves read their JSON
	everyCommand(t, func(t *testing.T, cmd *cobra.Command) {
		flag := cmd.Flags().Lookup("json")
		if flag == nil || cmd.HasSubCommands() {
			return
		}
		path := cmd.CommandPath()
		args, tested := runs[path]
		if withEnclave[path] {
			return
		}
		require.True(t, tested, "the command has --json and no test: add one, or the command to withoutJSON")
		out, told, _ := u.run("", append(append(strings.Fields(path)[1:], args...), "--json")...) // doctor may find something
		require.True(t, json.Valid([]byte(out)), "%s\n%s", out, told)
	})
	require.True(t, json.Valid([]byte(u.must("--json", "version"))), "before the command too")
	require.True(t, json.Valid([]byte(u.must("eif", "--json", "inspect", two))))
}

func TestQuietAndVerboseChangeStandardErrorAlone(t *testing.T) {
	u := newUser(t)
	dir := t.TempDir()
	build := []string{"build-enclave", "--rootfs", helloFolder(t, dir), "--output-file", filepath.Join(dir, "hello.eif")}
	plain, notes, err := u.run("", build...)
	require.NoError(t, err)
	require.Contains(t, notes, "Enclave Image successfully created.")

	out, notes, err := u.run("", append(build, "--quiet")...)
	require.NoError(t, err)
	require.Equal(t, plain, out)
	require.Empty(t, notes)

	out, notes, err = u.run("", append(build, "-v")...)
	require.NoError(t, err)
	require.Equal(t, plain, out)
	require.Regexp(t, `(?s)^nesim \S+ \(commit \S+, go\S+ linux/\S+\)\ndaemon: not running in `+regexp.QuoteMeta(u.dir)+`\n.*successfully created\.\nnesim build-enclave took \S+\n$`, notes)

	_, notes, err = u.run("", "describe-eif", "none.eif", "-q")
	require.Error(t, err)
	require.Equal(t, "nesim: [E19] stat none.eif: no such file or directory\n", notes)
	out, _, _ = u.run("", "scenario", "run", "-q", "--tags", "smoke")
	require.NotContains(t, out, "\n  passed", "steps are progress")
}

func TestTheVersionNamesCommitAndCompiler(t *testing.T) {
	u := newUser(t)
	require.Regexp(t, `^nesim \S+ \(commit \S+, go1\.\S+ linux/\w+\)\n$`, u.must("--version"))
	require.Equal(t, u.must("--version"), u.must("version"))
	if testing.Short() {
		t.Skip("builds the program")
	}
	program := filepath.Join(t.TempDir(), "nesim")
	flags := exec.Command("make", "-s", "-C", "../..", "print-version-flags")
	out, err := flags.Output()
	require.NoError(t, err)
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", strings.TrimSpace(string(out)), "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err = build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	head, err := exec.Command("git", "-C", "../..", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		head = []byte("unknown")
	}
	out, err = exec.Command(program, "--version").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "(commit "+string(bytes.TrimSpace(head))+", go1.")
}
