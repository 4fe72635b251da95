package main

import (
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// tame returns where to write what an enclave says: w, but, if that is a terminal and raw is not set, without anything
// that could steer the terminal.
func tame(w io.Writer, raw bool) io.Writer {
	if raw || !isTerminal(w) {
		return w
	}
	return &tamed{w: w}
}

// tamed replaces control characters other than the ends of lines and tabs, and what is not UTF-8.
type tamed struct {
	w    io.Writer
	rest []byte // the beginning of a character whose end has not come yet
}

// Write writes p, except for the beginning of a character at its end, which it keeps.
func (t *tamed) Write(p []byte) (int, error) {
	text := append(t.rest, p...)
	whole := len(text) - unfinished(text)
	safe := make([]byte, 0, whole)
	for b := text[:whole]; len(b) > 0; {
		r, size := utf8.DecodeRune(b)
		b = b[size:]
		if r != '\n' && r != '\r' && r != '\t' && !unicode.IsPrint(r) {
			r = replacement
		}
		safe = utf8.AppendRune(safe, r)
	}
	t.rest = append([]byte(nil), text[whole:]...)
	if _, err := t.w.Write(safe); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unfinished is how many bytes at the end of text begin a character that more bytes could complete.
func unfinished(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n:]; utf8.RuneStart(b[0]) {
			if utf8.FullRune(b) {
				return 0
			}
			return n
		}
	}
	return 0
}

// rawFlag adds the flag --raw for a command that shows what an enclave says.
func rawFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("raw", false, "on a terminal, pass control characters and escape sequences on instead of replacing them")
}
