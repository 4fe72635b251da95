package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nesim/nesim/scenarios/report"
	"github.com/nesim/nesim/scenarios/suite"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/instance"
)

// completionTime bounds how long a shell's completion waits for the daemon. It starts none.
const completionTime = time.Second

var (
	anyFile  = completeWith(cobra.ShellCompDirectiveDefault)
	folders  = completeWith(cobra.ShellCompDirectiveFilterDirs)
	noWords  = cobra.CompletionFunc(cobra.NoFileCompletions)
	eifFiles = filesEnding("eif")
	pemFiles = filesEnding("pem", "crt", "key")
)

// flagCompletions say what a shell offers for a flag: by the flag's name, or, where a name means several, by command and
// name. Flags that are on or off need none.
var flagCompletions = map[string]cobra.CompletionFunc{
	"accel": oneOf("auto", "kvm", "tcg"), "vsock": oneOf("user", "vhost"), "engine": oneOf("scripted", "qemu"),
	"format": oneOf("pem", "der"), "shard": oneOf("auto"), "threads-per-core": oneOf("1", "2"),
	"enclave-id":   enclaves(func(d instance.Description) []string { return []string{d.ID} }),
	"enclave-name": enclaves(func(d instance.Description) []string { return []string{d.Name} }),
	"error-code":   completeCodes, "report": completeReports, "tags": completeTags,
	"cpu-count": oneOf("2", "4"), "memory": oneOf("256M", "512M", "1G", "2G"), "enclave-cid": noWords, "cpu-ids": noWords,

	"eif-path": eifFiles, "output-file": eifFiles, "config": filesEnding("json"), "metadata": filesEnding("json"),
	"signing-certificate": pemFiles, "private-key": pemFiles, "ca-cert": pemFiles, "ca-key": pemFiles, "root": pemFiles, "tls-cert": pemFiles, "tls-key": pemFiles,
	"public-key": pemFiles, "user-data": anyFile, "input": anyFile, "kernel": anyFile, "kernel-config": anyFile, "init": anyFile,
	"docker-uri": filesEnding("tar", "tar.gz", "tgz"), "image": filesEnding("tar", "tar.gz", "tgz"), "copy": anyFile, "socket": anyFile, "device": anyFile,
	"record": anyFile, "scenario": filesEnding("yaml", "yml"), "docker-dir": folders, "rootfs": folders, "blobs-dir": folders, "modules": folders,
	"dir": folders, "nesim parent --root": folders,
	"nesim eif extract --output": folders, "nesim man --output": folders, "nesim attest document --output": anyFile,
	"listen": oneOf("127.0.0.1:4599", "unix:", "vsock:"), "nonce": noWords, "at": noWords, "clock": noWords, "region": noWords, "role-arn": noWords,
	"instance-id": noWords, "certificate-validity": noWords, "disconnect-timeout": noWords, "cpus": noWords, "ne-cpus": noWords,
	"max-enclaves": noWords, "hugepages": noWords, "gigantic-pages": noWords, "exec": noWords, "seed": noWords, "parallel": noWords,
	"vsock-port": noWords, "cmdline": noWords, "name": noWords, "version": noWords, "signer-command": noWords, "access-key": noWords, "host": noWords,
	"nesim parent --memory": noWords,
}

// argCompletions say what a shell offers for a command's arguments: by the command. Others have none.
var argCompletions = map[string]cobra.CompletionFunc{
	"nesim run-enclave": eifFiles, "nesim describe-eif": eifFiles, "nesim sign-eif": eifFiles,
	"nesim eif inspect": eifFiles, "nesim eif extract": eifFiles, "nesim eif diff": eifFiles,
	"nesim console": completeEnclaves, "nesim terminate-enclave": completeEnclaves, "nesim wait-enclave": completeEnclaves,
	"nesim explain": firstOnly(completeCodes), "nesim vsock dial": firstOnly(completeCIDs),
	"nesim attest verify": anyFile, "nesim attest show": anyFile,
	"nesim scenario run": filesEnding("yaml", "yml"), "nesim scenario lint": filesEnding("yaml", "yml"), "nesim scenario list": filesEnding("yaml", "yml"),
	"nesim scenario merge": filesEnding("json"), "nesim scenario record": anyFile, "nesim scenario replay": anyFile,
}

// completeEnclaves offers names and IDs of running enclaves.
var completeEnclaves = firstOnly(enclaves(func(d instance.Description) []string { return []string{d.Name, d.ID} }))

// addCompletions gives a command's flags and arguments what they have in the tables, unless they have something already.
func addCompletions(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		complete, ok := flagCompletions[cmd.CommandPath()+" --"+f.Name]
		if !ok {
			complete, ok = flagCompletions[f.Name]
		}
		if !ok && strings.HasPrefix(f.Name, "pcr") {
			complete, ok = noWords, true
		}
		if ok && f.NoOptDefVal == "" {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete) // fails where the command has its own
		}
	})
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = noWords
		if complete, ok := argCompletions[cmd.CommandPath()]; ok {
			cmd.ValidArgsFunction = complete
		}
	}
}

// oneOf offers words.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// filesEnding offers files with one of some endings.
func filesEnding(endings ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(endings, cobra.ShellCompDirectiveFilterFileExt)
}

func completeWith(directive cobra.ShellCompDirective) cobra.CompletionFunc {
	return cobra.FixedCompletions(nil, directive)
}

// firstOnly offers what complete does for the first argument alone.
func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, word)
	}
}

// enclaves offers something of each running enclave.
func enclaves(values func(instance.Description) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) (all []string, _ cobra.ShellCompDirective) {
		for _, d := range running(cmd) {
			all = append(all, values(d)...)
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeCIDs offers the CIDs of running enclaves, and the parent's.
func completeCIDs(cmd *cobra.Command, _ []string, _ string) (cids []string, _ cobra.ShellCompDirective) {
	for _, d := range running(cmd) {
		cids = append(cids, fmt.Sprintf("%d\t%s", d.CID, d.Name))
	}
	return append(cids, fmt.Sprintf("%d\tthe parent", vsockParent)), cobra.ShellCompDirectiveNoFileComp
}

// running asks the daemon, if one runs, for its enclaves.
func running(cmd *cobra.Command) []instance.Description {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	list, _ := client().Enclaves(ctx, false)
	return list
}

func completeCodes(*cobra.Command, []string, string) (codes []string, _ cobra.ShellCompDirective) {
	for code := errcode.MissingArgument; ; code++ {
		if _, err := errcode.Parse(code.String()); err != nil {
			return codes, cobra.ShellCompDirectiveNoFileComp
		}
		codes = append(codes, code.String()+"\t"+code.Explain().Title)
	}
}

// completeReports offers the formats; behind its equals sign each has a file.
func completeReports(_ *cobra.Command, _ []string, word string) (formats []string, _ cobra.ShellCompDirective) {
	if strings.Contains(word, "=") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	for _, format := range report.Formats() {
		formats = append(formats, format+"=")
	}
	return formats, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// completeTags offers the tags of the built-in suite.
func completeTags(*cobra.Command, []string, string) (tags []string, _ cobra.ShellCompDirective) {
	list, _ := suite.Load()
	for _, s := range list {
		tags = append(tags, s.Tags...)
	}
	slices.Sort(tags)
	return slices.Compact(tags), cobra.ShellCompDirectiveNoFileComp
}
