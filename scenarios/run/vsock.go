package run

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/vsock"
)

// conn is a connection that a step has made.
type conn struct {
	vsock.Conn
	early []byte // read, and not expected yet
}

// until gives reads and writes the time that a step has.
func (c *conn) until(ctx context.Context) error {
	at, limited := ctx.Deadline()
	if !limited {
		at = time.Time{}
	}
	return c.SetDeadline(at)
}

func (p *player) dial(ctx context.Context, b branch, d *scenarios.Dial, patient bool) error {
	cid := d.CID
	if d.Enclave != "" {
		e, err := p.enclave(d.Enclave)
		if err != nil {
			return err
		}
		cid = e.cid.Load()
	}
	c, err := p.connect(ctx, b, cid, d.Port, patient && !d.Once)
	if err != nil {
		return err
	}
	keep(p, p.conns, d.As, c)
	return nil
}

// connect dials a port. Who is patient waits for somebody to listen: the workload comes after the heartbeat.
func (p *player) connect(ctx context.Context, b branch, cid, port uint32, patient bool) (*conn, error) {
	for {
		c, err := p.stage.Net.Dial(ctx, vsock.Addr{ContextID: vsock.CIDParent, Port: vsock.PortAny}, vsock.Addr{ContextID: cid, Port: port})
		switch {
		case err == nil:
			return &conn{Conn: c}, nil
		case !patient, !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED), p.pause(ctx, b) != nil:
			return nil, err
		}
	}
}

func (p *player) listen(l *scenarios.Listen) error {
	listener, err := p.stage.Net.Listen(vsock.Addr{ContextID: vsock.CIDParent, Port: l.Port})
	if err != nil {
		return err
	}
	keep(p, p.listeners, l.As, listener)
	return nil
}

// accept takes a connection. A listener on which none came in time is closed.
func (p *player) accept(ctx context.Context, a *scenarios.Accept) error {
	l, err := find(p, p.listeners, "a listener", a.On)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	c, err := l.Accept()
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	keep(p, p.conns, a.As, &conn{Conn: c.(vsock.Conn)})
	if a.From == "" {
		return nil
	}
	e, err := p.enclave(a.From)
	if err != nil {
		return err
	}
	if got := c.RemoteAddr().(*vsock.Addr).ContextID; got != e.cid.Load() {
		return unlike("the connection comes from CID %d, not from %s (CID %d)", got, a.From, e.cid.Load())
	}
	return nil
}

func (p *player) send(ctx context.Context, s *scenarios.Send) error {
	c, err := find(p, p.conns, "a connection", s.On)
	if err != nil {
		return err
	}
	data := []byte(s.Text)
	switch {
	case s.Size > maxBytes:
		return fmt.Errorf("%d bytes are too many: send at most %d", s.Size, maxBytes)
	case s.Size > 0:
		data = pattern(int(s.Size))
	case s.Hex != "":
		if data, err = hex.DecodeString(strings.ReplaceAll(s.Hex, " ", "")); err != nil {
			return err
		}
	}
	if err := c.until(ctx); err != nil {
		return err
	}
	n, err := c.Write(data)
	if err != nil {
		return fmt.Errorf("sent %d of %d bytes: %w", n, len(data), err)
	}
	return nil
}

// maxBytes is what a step may send and receive.
const maxBytes = 64 << 20

// pattern is what goes over a connection where only its length matters.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// silence is how long nothing comes where nothing is expected.
const silence = time.Minute

func (p *player) receive(ctx context.Context, x *scenarios.Expect) error {
	c, err := find(p, p.conns, "a connection", x.On)
	if err != nil {
		return err
	}
	if x.Silent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, silence)
		defer cancel()
	}
	if err := c.until(ctx); err != nil {
		return err
	}
	switch {
	case x.Silent || x.EOF || x.Reset:
		return c.ends(x)
	case x.Regexp != "":
		return c.matches(x.Regexp)
	case x.Size > maxBytes:
		return fmt.Errorf("%d bytes are too many: expect at most %d", x.Size, maxBytes)
	case x.Size > 0:
		return c.comes(pattern(int(x.Size)))
	default:
		return c.comes([]byte(x.Text))
	}
}

// comes reads these bytes.
func (c *conn) comes(want []byte) error {
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if n < len(got) && bytes.HasPrefix(want, got[:n]) {
		return fmt.Errorf("%d of %d bytes came: %w", n, len(want), err)
	}
	if !bytes.Equal(got[:n], want) {
		return unlike("%.80q came, not %.80q", got[:n], want)
	}
	return nil
}

// Read reads what came early first.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// matches reads until what has come matches. What has come with it is taken too.
func (c *conn) matches(pattern string) error {
	want, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	var got []byte
	buf := make([]byte, 4096)
	for !want.Match(got) {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return fmt.Errorf("%.80q came, which does not match %q: %w", got, pattern, err)
		}
		if len(got) > maxBytes {
			return unlike("%d bytes came that do not match %q", len(got), pattern)
		}
	}
	return nil
}

// ends expects the end of the connection, or of patience.
func (c *conn) ends(x *scenarios.Expect) error {
	var one [1]byte
	n, err := c.Read(one[:])
	switch {
	case n > 0:
		return unlike("%q came, where nothing is expected", one[:n])
	case x.EOF && errors.Is(err, io.EOF), x.Reset && errors.Is(err, unix.ECONNRESET), x.Silent && errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return unlike("the connection gives %v", err)
}

func (p *player) close(b branch, s *scenarios.Close) error {
	if s.Enclave != "" {
		return p.closeEnclave(b, s.Enclave)
	}
	if l, err := find(p, p.listeners, "a listener", s.On); err == nil {
		return l.Close()
	}
	c, err := find(p, p.conns, "a connection", s.On)
	switch {
	case err != nil:
		return err
	case s.WriteOnly:
		return c.CloseWrite()
	}
	return c.Close()
}

// controlPort is where cmd/hello takes commands.
const controlPort = 5006

// ask sends hello a command and returns its answer.
func (p *player) ask(ctx context.Context, b branch, name, command string) (string, error) {
	e, err := p.enclave(name)
	if err != nil {
		return "", err
	}
	c, err := p.connect(ctx, b, e.cid.Load(), controlPort, true)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.until(ctx); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(io.LimitReader(c, maxAnswer)).ReadString('\n')
	p.turn(b)
	return strings.TrimSuffix(answer, "\n"), err
}

// maxAnswer is the longest line that hello answers with, in bytes.
const maxAnswer = 1 << 20

func (p *player) hello(ctx context.Context, b branch, s *scenarios.Call) error {
	answer, err := p.ask(ctx, b, s.Enclave, s.Command)
	if err != nil {
		return err
	}
	want, err := regexp.Compile(s.Answer)
	if err != nil {
		return err
	}
	if !want.MatchString(answer) {
		return unlike("it answers %.200q, which does not match %q", answer, s.Answer)
	}
	return nil
}

// attest has the enclave attested, and verifies the document under the stage's root.
func (p *player) attest(ctx context.Context, b branch, s *scenarios.Attest) error {
	nonce := cmp.Or(s.Nonce, "00")
	answer, err := p.ask(ctx, b, s.Enclave, "attest "+nonce)
	if err != nil {
		return err
	}
	got, why := p.verify(answer, nonce)
	p.note(b, s.Enclave, trace.NSM, "attestation: "+got)
	if want := cmp.Or(s.Expect, "verified"); got != want {
		if why != nil {
			return unlike("%s, not %s: %v", got, want, why)
		}
		return unlike("%s, not %s", got, want)
	}
	return nil
}

func (p *player) verify(answer, nonce string) (got string, why error) {
	if strings.HasPrefix(answer, "error:") {
		return "error", errors.New(answer)
	}
	document, err := base64.StdEncoding.DecodeString(answer)
	if err != nil {
		return "error", fmt.Errorf("it answers %.80q", answer)
	}
	root := p.stage.Root()
	if root == nil {
		return "error", errors.New("enclaves have no NSM on this instance: give it nsm: true")
	}
	wanted, err := hex.DecodeString(nonce)
	if err != nil {
		return "error", err
	}
	if _, err := attest.Verify(document, attest.Expect{Roots: []attest.Fingerprint{attest.FingerprintOf(root.Root())}, At: time.Now(), Nonce: wanted}); err != nil {
		return "refused", err
	}
	return "verified", nil
}

var _ net.Conn = (*conn)(nil)
