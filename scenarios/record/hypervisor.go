package record

import (
	"encoding/json"
	"io"
	"sync/atomic"
	"time"

	"github.com/nesim/nesim/pcidev"
)

// Hypervisor is hv with a recording of all its sessions, for who serves the device; Proxy is for others. failed, which
// may be nil, is called when the recording cannot be written; the sessions go on.
func Hypervisor(hv pcidev.Hypervisor, to io.Writer, failed func(error)) pcidev.Hypervisor {
	if failed == nil {
		failed = func(error) {}
	}
	return &recorded{Hypervisor: hv, recorder: &recorder{began: time.Now(), out: json.NewEncoder(to), failed: failed}}
}

type recorded struct {
	pcidev.Hypervisor
	*recorder
	sessions atomic.Int64
}

// Attach implements pcidev.Hypervisor.
func (r *recorded) Attach(mem pcidev.Memory, notify func()) (pcidev.Session, error) {
	session, err := r.Hypervisor.Attach(mem, notify)
	if err != nil {
		return nil, err
	}
	s := &recordedSession{Session: session, recorder: r.recorder, number: int(r.sessions.Add(1))}
	s.observer, _ = session.(pcidev.Observer)
	s.tell(Attached)
	return s, nil
}

// recordedSession is the observer of its device.
type recordedSession struct {
	pcidev.Session
	*recorder
	number   int
	observer pcidev.Observer // the session's own, or nil
}

func (s *recordedSession) tell(what string) {
	s.write(Entry{At: time.Since(s.began), Session: s.number, What: what})
}

// CommandDone implements pcidev.Observer.
func (s *recordedSession) CommandDone(c pcidev.Command, req pcidev.Request, reply pcidev.Reply) {
	if req != nil {
		e := entryOf(req, reply)
		e.At, e.Session = time.Since(s.began), s.number
		s.write(e)
	}
	if s.observer != nil {
		s.observer.CommandDone(c, req, reply)
	}
}

// EventRaised implements pcidev.Observer.
func (s *recordedSession) EventRaised(count uint16) {
	if s.observer != nil {
		s.observer.EventRaised(count)
	}
}

// Reset implements pcidev.Session.
func (s *recordedSession) Reset() error {
	s.tell(Disabled)
	return s.Session.Reset()
}

// Close implements pcidev.Session.
func (s *recordedSession) Close() error {
	s.tell(Detached)
	return s.Session.Close()
}
