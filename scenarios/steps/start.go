package steps

import (
	"context"
	"fmt"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/sim/nedriver"
)

var startStep = kind[Start]("start", "NE_START_ENCLAVE")

// Start starts an enclave and listens for its heartbeat.
type Start struct {
	Enclave string              `yaml:"enclave" required:"true"`
	CID     uint64              `yaml:"cid" doc:"the CID (default 0: the hypervisor chooses)"`
	Debug   bool                `yaml:"debug" doc:"debug mode"`
	Flags   *uint64             `yaml:"flags" doc:"flags of the start, instead of debug"`
	Does    *scripted.Behaviour `yaml:"does" doc:"what a scripted enclave does (default: what hello does)"`
	Unheard bool                `yaml:"unheard" doc:"do not listen for the heartbeat"`
}

// Check implements [scenarios.Action].
func (s *Start) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Enclave, s.Enclave)
	checkBehaviour(c, s.Does)
}

// checkBehaviour reports behaviour given to enclaves that are not scripted, and consoles without end.
func checkBehaviour(c *scenarios.Checker, does *scripted.Behaviour) {
	if does == nil {
		return
	}
	c.Only("scripted", "does is for scripted enclaves")
	size := 0
	for _, line := range does.Console {
		size += max(line.Times, 1) * (len(line.Text) + 1)
	}
	if size > scenarios.MaxConsole {
		c.Fail("the enclave's console has more than %d MiB", scenarios.MaxConsole>>20)
	}
}

// Do implements [Action].
func (s *Start) Do(_ context.Context, w *World, b Branch) error {
	e, err := w.enclave(s.Enclave)
	if err != nil {
		return err
	}
	e.stopListening()
	if !s.Unheard {
		if e.heartbeat, err = w.Stage.Heartbeats.Expect(); err != nil {
			return fmt.Errorf("listen for the heartbeat: %w", err)
		}
	}
	info := nedriver.StartInfo{EnclaveCID: s.CID}
	if s.Debug {
		info.Flags = nedriver.NEEnclaveDebugMode
	}
	if s.Flags != nil {
		info.Flags = *s.Flags
	}
	does := scripted.Behaviour{}
	if s.Does != nil {
		does = *s.Does
	}
	w.Stage.Name(e.slot, e.name, does)
	return w.call(b, e.name, "NE_START_ENCLAVE", func() (string, error) {
		cid, err := e.file.StartEnclave(info)
		if err == nil {
			e.cid.Store(uint32(cid))
			return fmt.Sprint("CID ", cid), nil
		}
		if why := w.Stage.Hypervisor.SlotError(e.slot); why != nil {
			err = fmt.Errorf("%w (%v)", err, why)
		}
		return "", err
	})
}
