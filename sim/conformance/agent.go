package conformance

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"sync"
)

// request asks the agent for a command, which is for sh -c.
type request struct {
	ID      int    `json:"id"`
	Command string `json:"command"`
}

// news is a piece of a command's output, or its end.
type news struct {
	ID     int    `json:"id"`
	Output string `json:"output,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Exit   int    `json:"exit,omitempty"`
}

// ServeAgent runs commands that are asked for on in, one JSON object each, any number at once, and tells on out what
// they write, both outputs together, and how they end. It returns when in has ended and so have they.
func ServeAgent(in io.Reader, out io.Writer) {
	a := &agent{out: json.NewEncoder(out)}
	var commands sync.WaitGroup
	defer commands.Wait()
	requests := json.NewDecoder(bufio.NewReader(in))
	for {
		var r request
		if requests.Decode(&r) != nil {
			return
		}
		commands.Go(func() { a.run(r) })
	}
}

type agent struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (a *agent) tell(n news) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.out.Encode(n)
}

func (a *agent) run(r request) {
	cmd := exec.Command("/bin/sh", "-c", r.Command)
	w := writerFunc(func(p []byte) { a.tell(news{ID: r.ID, Output: string(p)}) })
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Run()
	end := news{ID: r.ID, Ended: true}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		end.Exit = exit.ExitCode()
	} else if err != nil {
		a.tell(news{ID: r.ID, Output: err.Error()})
		end.Exit = 127
	}
	a.tell(end)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
