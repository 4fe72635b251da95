package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// finding is what a check of doctor has found.
type finding struct {
	Check  string `json:"Check"`
	Status status `json:"Status"`
	Found  string `json:"Found"`
	Do     string `json:"Do,omitempty"` // about it, where something is to be done
}

// status is how good a finding is.
type status string

const (
	ok   status = "ok"
	warn status = "warn" // something is slower or missing; enclaves run
	fail status = "fail" // enclaves do not run
)

func (s status) style() style {
	return map[status]style{ok: green, warn: yellow, fail: red}[s]
}

func doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run enclaves",
		Long: "Check whether this host can run enclaves, and print a line for each check: ok, warn if something is slow or\n" +
			"missing, or fail if enclaves will not run, with what to do about it. The exit code is 1 if a check failed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := examine(cmd.Context())
			if err := showAlways(cmd, findings, func(p *printer) { diagnose(p, findings) }); err != nil {
				return err
			}
			return failures(findings)
		},
	}
}

// examine runs every check.
func examine(ctx context.Context) (findings []finding) {
	q, found := examineQEMU(ctx)
	findings = append(findings, found)
	findings = append(findings, examineDevices(ctx, q)...)
	if q.Path != "" {
		findings = append(findings, examineSandbox(q))
	}
	findings = append(findings, examineKVM(q), examineKernel(), examineModules(), examineVsock(), examineParent())
	findings = append(findings, examineOpenFiles(), examineLockedMemory(), examineFolder(), examineDaemon(ctx))
	return append(findings, examineMemory(), examineSpace("temporary files", os.TempDir()), examineSpace("shared memory", "/dev/shm"))
}

func diagnose(p *printer, findings []finding) {
	var rows [][]cell
	for _, f := range findings {
		text := f.Found
		if f.Do != "" {
			text += ": " + f.Do
		}
		rows = append(rows, []cell{{string(f.Status), f.Status.style()}, {f.Check, bold}, {text: text}})
	}
	p.table(nil, rows)
}

// failures is the command's error where a check failed.
func failures(findings []finding) error {
	n := 0
	for _, f := range findings {
		if f.Status == fail {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("1 check failed: its line says what to do")
	}
	return fmt.Errorf("%d checks failed: their lines say what to do", n)
}
