package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios"
)

var expectStep = kind[Expect]("expect", "receive from a connection")

// Expect receives from a connection and compares what arrives.
type Expect struct {
	On     string         `yaml:"on" doc:"the connection" required:"true"`
	Text   string         `yaml:"text" doc:"these bytes arrive"`
	Regexp string         `yaml:"regexp" doc:"bytes arrive that match"`
	Size   scenarios.Size `yaml:"size" doc:"this many bytes arrive, as send sends them"`
	EOF    bool           `yaml:"eof" doc:"the end arrives, and nothing before it"`
	Reset  bool           `yaml:"reset" doc:"the connection is reset"`
	Silent bool           `yaml:"silent" doc:"nothing arrives within a minute"`
}

// silence is how long nothing arrives where nothing is expected.
const silence = time.Minute

// Check implements [scenarios.Action].
func (s *Expect) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Endpoint, s.On)
	c.Regexp(s.Regexp)
	c.OneOf("text, regexp, size, eof, reset or silent", s.Text != "", s.Regexp != "", s.Size > 0, s.EOF, s.Reset, s.Silent)
	if s.Size > maxBytes {
		c.Fail("size %d is too large: expect at most %d bytes", s.Size, maxBytes)
	}
}

// Do implements [Action].
func (s *Expect) Do(ctx context.Context, w *World, _ Branch) error {
	c, err := find(w, w.conns, "a connection", s.On)
	if err != nil {
		return err
	}
	if s.Silent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, silence)
		defer cancel()
	}
	if err := c.limit(ctx); err != nil {
		return err
	}
	switch {
	case s.Silent || s.EOF || s.Reset:
		return s.end(c)
	case s.Regexp != "":
		return s.match(c, w.stop)
	case s.Size > 0:
		return equal(c, pattern(int(s.Size)))
	default:
		return equal(c, []byte(s.Text))
	}
}

// equal reads as many bytes as are expected and compares them.
func equal(c *conn, want []byte) error {
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if n < len(got) && bytes.HasPrefix(want, got[:n]) {
		return fmt.Errorf("%d of %d bytes arrived: %w", n, len(want), err)
	}
	if !bytes.Equal(got[:n], want) {
		return mismatch("%.80q arrived, not %.80q", got[:n], want)
	}
	return nil
}

// match reads until what has arrived matches. Bytes that arrived with it are taken too.
func (s *Expect) match(c *conn, stop func() error) error {
	want, err := regexp.Compile(s.Regexp)
	if err != nil {
		return err
	}
	var got []byte
	buf := make([]byte, 4096)
	for !want.Match(got) {
		if err := stop(); err != nil {
			return err
		}
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return fmt.Errorf("%.80q arrived, which does not match %q: %w", got, s.Regexp, err)
		}
		if len(got) > maxBytes {
			return mismatch("%d bytes arrived that do not match %q", len(got), s.Regexp)
		}
	}
	return nil
}

// end expects the connection to end, or to stay silent.
func (s *Expect) end(c *conn) error {
	var one [1]byte
	n, err := c.Read(one[:])
	switch {
	case n > 0:
		return mismatch("%q arrived, where nothing is expected", one[:n])
	case s.EOF && errors.Is(err, io.EOF), s.Reset && errors.Is(err, unix.ECONNRESET), s.Silent && errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return mismatch("reading the connection gives %v", err)
}
