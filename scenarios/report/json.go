package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/nesim/nesim/scenarios/trace"
)

// MaxSize is how large a JSON report may be for Read, in bytes: what it is read into can be some ten times as large.
const MaxSize = 128 << 20

func writeJSON(w io.Writer, run *trace.Run) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	return e.Encode(run)
}

// Read reads what Write wrote as "json". It takes nothing else: no unknown field, status or kind of entry, no negative
// number, nothing behind it, and no more than MaxSize. It ends with the context's error when that is done.
func Read(ctx context.Context, r io.Reader) (*trace.Run, error) {
	run, err := read(&io.LimitedReader{R: stoppable{ctx, r}, N: MaxSize + 1})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("not a JSON report of nesim: %w", err)
	}
	return run, nil
}

// stoppable is a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

func read(r *io.LimitedReader) (*trace.Run, error) {
	var run *trace.Run
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(&run)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("something follows it")
		}
	}
	switch {
	case r.N <= 0:
		return nil, fmt.Errorf("it is larger than %d MiB", MaxSize>>20)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("it ends too early")
	case err != nil:
		return nil, err
	case run == nil:
		return nil, errors.New("it is empty")
	}
	for i := range run.Results {
		if err := check(&run.Results[i]); err != nil {
			return nil, fmt.Errorf("result %d (%.80q): %w", i+1, run.Results[i].Name, err)
		}
	}
	return run, nil
}

func check(r *trace.Result) error {
	switch r.Status {
	case trace.Passed, trace.Failed, trace.Broken, trace.Skipped:
	default:
		return fmt.Errorf("no status %.40q", r.Status)
	}
	if r.Name == "" {
		return errors.New("it has no name")
	}
	if r.Line < 0 || r.Elapsed < 0 {
		return errors.New("a number is negative")
	}
	for i, s := range r.Steps {
		switch s.Status {
		case trace.Passed, trace.Failed, trace.Broken, trace.Skipped, trace.NotRun:
		default:
			return fmt.Errorf("step %d: no status %.40q", i+1, s.Status)
		}
		if s.Number < 0 || s.Line < 0 || s.Start < 0 || s.Elapsed < 0 {
			return fmt.Errorf("step %d: a number is negative", i+1)
		}
	}
	for i, f := range r.Faults {
		if f.Line < 0 || f.Struck < 0 {
			return fmt.Errorf("fault %d: a number is negative", i+1)
		}
	}
	for i, e := range r.Entries {
		if !known(e.Kind) {
			return fmt.Errorf("entry %d: no kind %.40q", i+1, e.Kind)
		}
		if e.Step < 0 || e.At < 0 {
			return fmt.Errorf("entry %d: a number is negative", i+1)
		}
	}
	return nil
}

func known(kind trace.Kind) bool {
	switch kind {
	case trace.Step, trace.Command, trace.Interrupt, trace.State, trace.Ioctl, trace.Vsock, trace.Heartbeat,
		trace.Console, trace.NSM, trace.Fault, trace.Note:
		return true
	}
	return false
}
