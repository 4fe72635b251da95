package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// withoutJSON are the commands that print no value, with the reason. Every other command has --json.
var withoutJSON = map[string]string{
	"nesim console":         "prints what the enclave writes",
	"nesim vsock dial":      "prints what the peer sends",
	"nesim vsock listen":    "prints what the peer sends",
	"nesim parent":          "prints what the command in the VM writes",
	"nesim serve":           "runs until it is stopped, and logs",
	"nesim kms serve":       "runs until it is stopped; prints its endpoints",
	"nesim shutdown":        "prints nothing",
	"nesim attest root":     "prints a certificate",
	"nesim attest document": "prints a document, in CBOR or base64",
	"nesim scenario schema": "prints a JSON Schema in any case",
	"nesim scenario record": "prints nothing",
	"nesim man":             "writes files",
	"nesim help":            "prints help",
}

// addJSON gives a command --json. A group has it hidden, so that it can stand before the command's name too.
func addJSON(cmd *cobra.Command) {
	_, without := withoutJSON[cmd.CommandPath()]
	if without || cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
		return
	}
	cmd.Flags().Bool("json", false, "print JSON on a terminal too")
	if cmd.HasSubCommands() {
		_ = cmd.Flags().MarkHidden("json")
	}
}

// wantsJSON reports whether --json is given.
func wantsJSON(cmd *cobra.Command) bool {
	set, _ := cmd.Flags().GetBool("json")
	return set
}

// show prints a value: as JSON, or on a terminal without --json as people writes it.
func show(cmd *cobra.Command, value any, people func(p *printer)) error {
	if w := cmd.OutOrStdout(); !isTerminal(w) {
		return printJSON(w, value)
	}
	return showAlways(cmd, value, people)
}

// showAlways is show for a command whose output is for people in the first place: JSON only with --json.
func showAlways(cmd *cobra.Command, value any, people func(p *printer)) error {
	w := cmd.OutOrStdout()
	if wantsJSON(cmd) {
		return printJSON(w, value)
	}
	p := &printer{w: w, colours: isTerminal(w) && coloured(os.Getenv)}
	people(p)
	return p.err
}

// printJSON writes a value as nitro-cli does, with an indent of two spaces. On a terminal what could steer it, of which
// JSON's own rules leave some as it is, is escaped: the value is the same.
func printJSON(w io.Writer, value any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return err
	}
	out := text.String()
	if isTerminal(w) {
		out = escapeJSON(out)
	}
	_, err := io.WriteString(w, out)
	return err
}

// escapeJSON escapes the characters of a JSON text that are not printable. They stand in strings alone.
func escapeJSON(text string) string {
	var out strings.Builder
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&out, "\\u%04x", unit)
		}
	}
	return out.String()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// coloured reports whether to use colours on a terminal: not with NO_COLOR (https://no-color.org) or a dumb one.
func coloured(env func(string) string) bool { return env("NO_COLOR") == "" && env("TERM") != "dumb" }

// style is how a cell looks: an SGR code of ECMA-48, or 0.
type style int

const (
	plain  style = 0
	bold   style = 1
	red    style = 31
	green  style = 32
	yellow style = 33
)

// cell is a word or more in a table.
type cell struct {
	text  string
	style style
}

// cells makes a row of plain cells.
func cells(values ...any) (row []cell) {
	for _, value := range values {
		row = append(row, cell{text: fmt.Sprint(value)})
	}
	return row
}

// printer writes for people on a terminal.
type printer struct {
	w       io.Writer
	colours bool
	err     error
}

// table prints rows in columns, below a bold header if there is one.
func (p *printer) table(header []string, rows [][]cell) {
	if len(header) > 0 {
		var first []cell
		for _, title := range header {
			first = append(first, cell{title, bold})
		}
		rows = append([][]cell{first}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for n, c := range row {
			if n == len(widths) {
				widths = append(widths, 0)
			}
			widths[n] = max(widths[n], utf8.RuneCountInString(printable(c.text)))
		}
	}
	for _, row := range rows {
		p.row(row, widths)
	}
}

func (p *printer) row(row []cell, widths []int) {
	var line strings.Builder
	for n, c := range row {
		text := printable(c.text)
		pad := strings.Repeat(" ", widths[n]-utf8.RuneCountInString(text)+2)
		if p.colours && c.style != plain {
			text = fmt.Sprintf("\x1b[%dm%s\x1b[0m", c.style, text)
		}
		line.WriteString(text)
		if n < len(row)-1 {
			line.WriteString(pad)
		}
	}
	p.line(line.String())
}

// fields prints names with their values; those without a value are left out.
func (p *printer) fields(pairs ...[2]string) {
	var rows [][]cell
	for _, pair := range pairs {
		if pair[1] != "" {
			rows = append(rows, []cell{{pair[0], bold}, {text: pair[1]}})
		}
	}
	p.table(nil, rows)
}

func (p *printer) line(text string) {
	if _, err := fmt.Fprintln(p.w, text); p.err == nil {
		p.err = err
	}
}

// replacement stands for a character that is not shown.
const replacement = '·'

// printable replaces what could steer a terminal: names and messages come from images and enclaves.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return replacement
	}, text)
}

// oneLine puts an error that has several lines, as joined ones have, on one.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for n, line := range lines {
		lines[n] = printable(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")))
	}
	return strings.Join(lines, "; ")
}
