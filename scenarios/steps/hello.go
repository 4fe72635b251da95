package steps

import (
	"bufio"
	"context"
	"io"
	"strings"

	"github.com/nesim/nesim/internal/guestwire"
)

// maxAnswer bounds a line that hello answers with, in bytes.
const maxAnswer = 1 << 20

// ask sends the hello workload of an enclave a command and returns its answer.
func (w *World) ask(ctx context.Context, b Branch, name, command string) (string, error) {
	e, err := w.enclave(name)
	if err != nil {
		return "", err
	}
	c, err := w.connect(ctx, b, e.cid.Load(), guestwire.ControlPort, true)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.limit(ctx); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(io.LimitReader(c, maxAnswer)).ReadString('\n')
	w.turn(b)
	return strings.TrimSuffix(answer, "\n"), err
}
