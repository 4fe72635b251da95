package steps

import (
	"fmt"
	"sync/atomic"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
)

// process is a process of the parent.
type process struct {
	*nedriver.Process
	gone bool
}

func (p *process) exit() error {
	if p.gone {
		return nil
	}
	p.gone = true
	return p.Exit()
}

// enclave is what the parent has of an enclave.
type enclave struct {
	name      string
	process   *process
	file      *nedriver.Enclave
	slot      uint64
	cid       atomic.Uint32 // another branch may ask for it
	image     uint64        // bytes
	memory    uint64        // bytes
	heartbeat *parent.Expectation
}

// stopListening stops listening for the enclave's heartbeat.
func (e *enclave) stopListening() {
	if e.heartbeat != nil {
		e.heartbeat.Close()
		e.heartbeat = nil
	}
}

// find returns what an earlier step has given a name.
func find[T any](w *World, m map[string]T, noun scenarios.Noun, name string) (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := m[name]
	if !ok {
		return v, fmt.Errorf("no earlier step made %s %q", noun, name)
	}
	return v, nil
}

func (w *World) enclave(name string) (*enclave, error) {
	return find(w, w.enclaves, scenarios.Enclave, name)
}

// keep gives something a name.
func keep[T any](w *World, m map[string]T, name string, v T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m[name] = v
}

// process returns the process with a name, which is started if it is not running.
func (w *World) process(name string) *process {
	if name == "" {
		name = scenarios.MainProcess
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if have := w.processes[name]; have != nil && !have.gone {
		return have
	}
	started := &process{Process: w.Stage.Host.NewProcess()}
	w.processes[name] = started
	return started
}
