package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/qemu"
	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/nedriver"
)

// rememberedEndings is how many ended enclaves can still be asked how they ended.
const rememberedEndings = 256

// enclave is an enclave with the process of the parent that runs it.
type enclave struct {
	instance *Instance
	process  *nedriver.Process
	driver   *nedriver.Enclave
	name, id string
	slotUID  uint64
	debug    bool
	noNSM    bool
	machine  qemu.MachineType
	lines    progress // what there is to say while it is launched

	mu      sync.Mutex // a leaf
	info    Description
	running bool // its heartbeat has been answered
	asked   bool // the parent ends it

	ending Ending        // set before ended is closed
	ended  chan struct{} // closed when it has ended and nothing of it is left
}

// create makes an enclave that has nothing yet, and the goroutine that waits for its end.
func (i *Instance) create(spec *RunSpec) (*enclave, error) {
	machine, err := i.wantedMachine(spec)
	if err != nil {
		return nil, err
	}
	process := i.host.NewProcess()
	driver, err := i.driver.Open(process).CreateVM()
	if err != nil {
		_ = process.Exit()
		if errors.Is(err, unix.ENOSPC) {
			err = fmt.Errorf("%w: every slot is in use: end an enclave, or see nesim serve --max-enclaves", err)
		}
		return nil, errcode.New(errcode.IoctlFailure, "make an enclave: %w", err)
	}
	e := &enclave{
		instance: i, process: process, driver: driver, ended: make(chan struct{}),
		slotUID: driver.SlotUID(), id: enclaveID(i.cfg.ID, driver.SlotUID()), debug: spec.Debug, noNSM: spec.NoNSM, machine: machine,
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		_ = process.Exit()
		return nil, errEnding
	}
	if i.parentVM {
		_ = process.Exit()
		return nil, errParentVM
	}
	e.name = i.uniqueName(spec)
	i.enclaves = append(i.enclaves, e)
	i.watches.Go(e.watch)
	return e, nil
}

// uniqueName gives the name asked for, with a number behind it where that is taken. i.mu is held.
func (i *Instance) uniqueName(spec *RunSpec) string {
	wanted := spec.Name
	if wanted == "" {
		wanted = baseName(spec.EIFPath)
	}
	name := wanted
	for n := 1; slices.ContainsFunc(i.enclaves, func(e *enclave) bool { return e.name == name }); n++ {
		name = wanted + "_" + strconv.Itoa(n)
	}
	return name
}

// watch waits for the enclave's descriptor to hang up or to be closed, gives back all that the enclave has, and
// records how it ended.
func (e *enclave) watch() {
	<-e.driver.Done()
	hungUpAt := time.Now()
	slot, _ := e.instance.hypervisor.Slot(e.driver.SlotUID())
	if err := e.process.Exit(); err != nil {
		e.instance.cfg.Log.Warn("free the enclave", "enclave", e.id, "error", err)
	}
	asked := e.terminated()
	e.ending = Ending{Name: e.name, ID: e.id, Asked: asked}
	switch {
	case asked:
		e.ending.Reason = hypervisor.ExitAsked.String()
		if slot.Unbootable != nil {
			e.ending.Detail = slot.Unbootable.Error()
		}
	case slot.Exit != nil:
		e.ending.report(*slot.Exit)
		e.ending.HangUpMicros = hungUpAt.Sub(slot.EndedAt).Microseconds()
	default:
		e.ending.Reason, e.ending.Detail = "unknown", fmt.Sprint(e.driver.Err())
	}
	e.instance.forget(e)
	close(e.ended)
}

// forget moves an enclave from the running ones to the ended.
func (i *Instance) forget(e *enclave) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.enclaves = slices.DeleteFunc(i.enclaves, func(other *enclave) bool { return other == e })
	i.ended = append(i.ended, e)
	if len(i.ended) > rememberedEndings {
		i.ended = slices.Delete(i.ended, 0, len(i.ended)-rememberedEndings)
	}
}

// terminate closes the enclave's descriptor and waits until nothing is left.
func (e *enclave) terminate() {
	e.mu.Lock()
	if !e.hungUp() {
		e.asked = true
	}
	e.mu.Unlock()
	_ = e.driver.Close() // os.ErrClosed where another was first
	<-e.ended
}

// terminated reports whether the parent ends the enclave, or has ended it.
func (e *enclave) terminated() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

func (e *enclave) hungUp() bool { return errors.Is(e.driver.Err(), nedriver.ErrHangUp) }

// Enclaves describes the enclaves that run, with their images' metadata where that is asked for.
func (i *Instance) Enclaves(metadata bool) []Description {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := []Description{}
	for _, e := range i.enclaves {
		if described, running := e.describe(); running {
			if !metadata {
				described.Identity = eif.Identity{}
			}
			list = append(list, described)
		}
	}
	return list
}

// describe reports whether the enclave runs, and if so all about it. One that has hung up does not, though its memory may
// still be on its way back.
func (e *enclave) describe() (Description, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	described := e.info
	described.State, described.Flags = "RUNNING", "NONE"
	if e.asked {
		described.State = "TERMINATING"
	}
	if e.debug {
		described.Flags = "DEBUG_MODE"
	}
	return described, e.running && !e.hungUp()
}

// Terminate ends an enclave and waits until nothing of it is left.
func (i *Instance) Terminate(r Ref) (Ending, error) {
	e, err := i.find(r, false)
	if err != nil {
		return Ending{}, err
	}
	e.terminate()
	return e.ending, nil
}

// WaitEnclave waits for the end of an enclave, which may have ended lately.
func (i *Instance) WaitEnclave(ctx context.Context, r Ref) (Ending, error) {
	e, err := i.find(r, true)
	if err != nil {
		return Ending{}, err
	}
	select {
	case <-e.ended:
		return e.ending, nil
	case <-ctx.Done():
		return Ending{}, ctx.Err()
	}
}
