package run

import (
	"fmt"
	"sync/atomic"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
)

// process is a process of the parent.
type process struct {
	*nedriver.Process
	name string
	gone bool
}

func (p *process) exit() error {
	if p.gone {
		return nil
	}
	p.gone = true
	return p.Exit()
}

// enclave is what the scenario has of an enclave.
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

// deaf ends the waiting for the enclave's heartbeat.
func (e *enclave) deaf() {
	if e.heartbeat != nil {
		e.heartbeat.Close()
		e.heartbeat = nil
	}
}

// find returns what a step has given a name.
func find[T any](p *player, m map[string]T, what, name string) (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := m[name]
	if !ok {
		return v, fmt.Errorf("no step has made %s %q", what, name)
	}
	return v, nil
}

func (p *player) enclave(name string) (*enclave, error) {
	return find(p, p.enclaves, "an enclave", name)
}

// keep gives something a name.
func keep[T any](p *player, m map[string]T, name string, v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m[name] = v
}

const firstProcess = "main"

// process returns the process with a name, which is started where there is none.
func (p *player) process(name string) *process {
	if name == "" {
		name = firstProcess
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.processes[name]; have != nil && !have.gone {
		return have
	}
	started := &process{Process: p.stage.Host.NewProcess(), name: name}
	p.processes[name] = started
	return started
}

// behaviourOf is what a scripted enclave does.
func behaviourOf(b *scenarios.Behaviour) scripted.Behaviour {
	if b == nil {
		return scripted.Behaviour{}
	}
	does := scripted.Behaviour{Boot: b.Boot.Std(), Mute: b.Mute, Leaves: b.Leaves, Workload: b.Workload, IgnoreEnd: b.Hangs}
	for _, line := range b.Console {
		does.Console = append(does.Console, scripted.Line{At: line.At.Std(), Text: line.Text, Times: line.Times})
	}
	for _, dial := range b.Dials {
		does.Dials = append(does.Dials, scripted.Dial{At: dial.At.Std(), Port: dial.Port, Text: dial.Text})
	}
	if b.Ends != nil {
		does.Ends = &scripted.Ending{At: b.Ends.At.Std(), How: b.Ends.How, Code: b.Ends.Code}
	}
	return does
}
