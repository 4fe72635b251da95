package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/scenarios"
	"github.com/nesim/nesim/scenarios/trace"
	"github.com/nesim/nesim/sim/nedriver"
	"github.com/nesim/nesim/sim/parent"
)

// What run gives an enclave by default.
const (
	runCPUs   = 2
	runMemory = 128 << 20
)

// call makes a call of the driver in the branch's turn, and notes it with what comes of it.
func (p *player) call(b branch, lane, what string, do func() (string, error)) (err error) {
	p.alone(b, func() {
		var got string
		if got, err = do(); err != nil {
			got = scenarios.ErrnoName(nedriver.Code(err))
		}
		p.note(b, lane, trace.Ioctl, what+" = "+cmp.Or(got, "0"))
	})
	return err
}

func (p *player) create(b branch, c *scenarios.Create) error {
	process := p.process(c.Process)
	return p.call(b, c.Enclave, "NE_CREATE_VM", func() (string, error) {
		file, err := p.stage.Driver.Open(process.Process).CreateVM()
		if err != nil {
			return "", err
		}
		e := &enclave{name: c.Enclave, process: process, file: file, slot: file.SlotUID()}
		p.mu.Lock()
		before := p.enclaves[c.Enclave]
		p.enclaves[c.Enclave] = e
		p.mu.Unlock()
		if before != nil {
			before.deaf()
		}
		p.stage.Name(e.slot, e.name, behaviourOf(nil))
		return "", nil
	})
}

func (p *player) addMemory(ctx context.Context, b branch, a *scenarios.AddMemory) error {
	e, err := p.enclave(a.Enclave)
	if err != nil {
		return err
	}
	memory, err := p.memory(ctx, e, a)
	if err != nil {
		return err
	}
	size := cmp.Or(uint64(a.Size), memory.Size())
	region := nedriver.UserMemoryRegion{Flags: a.Flags, MemorySize: size, UserspaceAddr: memory.Addr() + uint64(a.Shift)}
	return p.call(b, e.name, fmt.Sprintf("NE_SET_USER_MEMORY_REGION of %d KiB", size>>10), func() (string, error) {
		err := e.file.SetUserMemoryRegion(region)
		if err == nil {
			e.memory += size
		}
		return "", err
	})
}

// memory maps the memory of a step, with its image, or finds the memory that an earlier one has mapped.
func (p *player) memory(ctx context.Context, e *enclave, a *scenarios.AddMemory) (*nedriver.Mapping, error) {
	if a.Again != "" {
		return find(p, p.memories, "memory", a.Again)
	}
	process := e.process
	if a.Process != "" {
		process = p.process(a.Process)
	}
	memory, err := process.Mmap(nedriver.MapSpec{
		Size: uint64(a.Size), PageSize: uint64(a.PageSize), Node: a.Node, ContiguousPages: a.Contiguous,
	})
	if err != nil {
		return nil, fmt.Errorf("map %d KiB: %w", a.Size>>10, err)
	}
	if a.As != "" {
		keep(p, p.memories, a.As, memory)
	}
	if a.Image == "" || a.Image == "none" {
		return memory, nil
	}
	return memory, p.load(ctx, e, memory, a)
}

func (p *player) addCPU(b branch, a *scenarios.AddCPU) error {
	e, err := p.enclave(a.Enclave)
	if err != nil {
		return err
	}
	for range max(a.Count, 1) {
		err := p.call(b, e.name, fmt.Sprintf("NE_ADD_VCPU %d", a.CPU), func() (string, error) {
			cpu, err := e.file.AddVCPU(a.CPU)
			return fmt.Sprint("CPU ", cpu), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *player) imageInfo(b branch, i *scenarios.ImageInfo) error {
	e, err := p.enclave(i.Enclave)
	if err != nil {
		return err
	}
	flags := uint64(nedriver.NEEIFImage)
	if i.Flags != nil {
		flags = *i.Flags
	}
	var offset uint64
	err = p.call(b, e.name, "NE_GET_IMAGE_LOAD_INFO", func() (_ string, err error) {
		offset, err = e.file.GetImageLoadInfo(flags)
		return fmt.Sprint(offset), err
	})
	if err == nil && i.Offset != nil && *i.Offset != offset {
		return unlike("the image begins at %d, not %d", offset, *i.Offset)
	}
	return err
}

func (p *player) start(b branch, s *scenarios.Start) error {
	e, err := p.enclave(s.Enclave)
	if err != nil {
		return err
	}
	e.deaf()
	if !s.Unheard {
		if e.heartbeat, err = p.stage.Heartbeats.Expect(); err != nil {
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
	p.stage.Name(e.slot, e.name, behaviourOf(s.Does))
	return p.call(b, e.name, "NE_START_ENCLAVE", func() (string, error) {
		cid, err := e.file.StartEnclave(info)
		if err == nil {
			e.cid.Store(uint32(cid))
			return fmt.Sprint("CID ", cid), nil
		}
		if why := p.stage.Hypervisor.SlotError(e.slot); why != nil {
			err = fmt.Errorf("%w (%v)", err, why)
		}
		return "", err
	})
}

func (p *player) heartbeat(ctx context.Context, b branch, h *scenarios.Heartbeat) error {
	e, err := p.enclave(h.Enclave)
	if err != nil {
		return err
	}
	if e.heartbeat == nil {
		return errors.New("nobody listens for its heartbeat: start the enclave first, and not unheard")
	}
	limit := parent.Timeout(e.image, e.memory)
	if h.Within > 0 {
		limit = h.Within.Std()
	}
	err = e.heartbeat.Wait(ctx, e.cid.Load(), limit, e.file.Done())
	e.deaf()
	came := heartbeatName(err)
	p.note(b, e.name, trace.Heartbeat, came)
	p.measure(b, e)
	switch want := cmp.Or(h.Expect, "answered"); {
	case came == want:
		return nil
	case err != nil:
		return unlike("heartbeat %s, not %s: %v", came, want, err)
	default:
		return unlike("heartbeat %s, not %s", came, want)
	}
}

// heartbeatName is what became of a heartbeat, as files have it.
func heartbeatName(err error) string {
	switch {
	case err == nil:
		return "answered"
	case errors.Is(err, parent.ErrTimeout):
		return "time-out"
	case errors.Is(err, parent.ErrEnded):
		return "ended"
	case errors.Is(err, parent.ErrBadHeartbeat):
		return "bad"
	}
	return "failed"
}

// run is create to heartbeat.
func (p *player) run(ctx context.Context, b branch, r *scenarios.RunEnclave) error {
	size := scenarios.Size(cmp.Or(uint64(r.Memory), runMemory))
	image := cmp.Or(r.Image, "hello")
	if err := p.checkDates(ctx, image); err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	if err := p.create(b, &scenarios.Create{Enclave: r.Enclave, Process: r.Process}); err != nil {
		return err
	}
	memory := &scenarios.AddMemory{Enclave: r.Enclave, Size: size, Image: image}
	if err := p.addMemory(ctx, b, memory); err != nil {
		return err
	}
	if err := p.addCPU(b, &scenarios.AddCPU{Enclave: r.Enclave, Count: cmp.Or(r.CPUs, runCPUs)}); err != nil {
		return err
	}
	if err := p.start(b, &scenarios.Start{Enclave: r.Enclave, CID: r.CID, Debug: r.Debug, Does: r.Does}); err != nil {
		return err
	}
	return p.heartbeat(ctx, b, &scenarios.Heartbeat{Enclave: r.Enclave, Expect: r.Expect})
}

// terminate closes the enclave's file and waits until its machine has ended.
func (p *player) terminate(ctx context.Context, b branch, name string) error {
	if err := p.closeEnclave(b, name); err != nil {
		return err
	}
	e, err := p.enclave(name)
	if err != nil {
		return err
	}
	return p.until(ctx, b, func() error {
		if _, there := p.stage.Hypervisor.Slot(e.slot); there {
			return unlike("its slot is still there")
		}
		return nil
	})
}

func (p *player) closeEnclave(b branch, name string) error {
	e, err := p.enclave(name)
	if err != nil {
		return err
	}
	e.deaf()
	p.measure(b, e)
	return p.call(b, name, "close", func() (string, error) { return "", e.file.Close() })
}

// measure finds out what the enclave costs beside its RAM: once it is up, and before it is ended.
func (p *player) measure(b branch, e *enclave) {
	n := p.stage.VMMMemory(e.slot)
	if n == 0 {
		return
	}
	p.note(b, e.name, trace.Note, fmt.Sprintf("its VMM takes %d MiB beside the enclave's RAM", n>>20))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vmmMemory = max(p.vmmMemory, n)
}

func (p *player) exitProcess(b branch, name string) error {
	process, err := find(p, p.processes, "a process", name)
	if err != nil {
		return err
	}
	return p.call(b, "parent", "process "+name+" exits", func() (string, error) { return "", process.exit() })
}

// until waits until something is so, for as long as the step has.
func (p *player) until(ctx context.Context, b branch, so func() error) error {
	for {
		err := so()
		if err == nil || p.pause(ctx, b) != nil {
			return err
		}
	}
}

// pause waits a little. Branches that wake at the same instant go on one at a time.
func (p *player) pause(ctx context.Context, b branch) error {
	err := sleep(ctx, retry)
	if err == nil {
		p.turn(b)
	}
	return err
}

// retry is how long a pause is.
const retry = 10 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// codeOf is the error code of whatever a step ran into.
func codeOf(err error) int {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return int(unix.ETIMEDOUT)
	}
	return nedriver.Code(err)
}
