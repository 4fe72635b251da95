package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/internal/bubble"
	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/sim/hypervisor"
	"github.com/nesim/nesim/sim/vsock"
)

// Difference is a command to which the model gave another reply than the recorded device.
type Difference struct {
	Index         int // of the entry, from 0
	Entry         Entry
	Field         string
	Recorded, Now uint64
}

func (d Difference) String() string {
	return fmt.Sprintf("entry %d, %s of session %d: %s was %#x and is %#x", d.Index+1, d.Entry.What, d.Entry.Session, d.Field, d.Recorded, d.Now)
}

// Replay gives the recording's commands to the device's model, in its order and at its times on a virtual clock, and
// reports where the replies differ. Slot uids and CIDs are the recorded ones; an enclave is a machine that does nothing,
// and ends where the recording shows that it has ended; its image is a small one. It ends with the context's error when ctx
// is done.
func Replay(ctx context.Context, entries []Entry) (differences []Difference, err error) {
	for i := range entries {
		if err := entries[i].check(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
	}
	stuck := bubble.Run(func() {
		p := newPlayer(entries)
		defer p.close()
		for i := range entries {
			if err = ctx.Err(); err != nil { // nothing in a bubble may wait for what is outside
				return
			}
			var found []Difference
			if found, err = p.play(i); err != nil {
				err = fmt.Errorf("entry %d, %s: %w", i+1, entries[i].What, err)
				return
			}
			differences = append(differences, found...)
		}
	})
	if stuck != nil {
		return nil, fmt.Errorf("replay: %w", stuck)
	}
	return differences, err
}

// player replays one recording.
type player struct {
	entries    []Entry
	began      time.Time
	net        *vsock.Switch
	machines   *scripted.VMM
	hypervisor *hypervisor.Hypervisor
	sessions   map[int]*session
	refuse     bool // the machine of the start under way
}

// maxTime bounds the time between two entries that is replayed.
const maxTime = 24 * time.Hour

func newPlayer(entries []Entry) *player {
	p := &player{entries: entries, began: time.Now(), net: vsock.New(), sessions: make(map[int]*session)}
	p.machines = scripted.New(scripted.Config{Net: p.net, Behaviour: func(hypervisor.VMSpec) scripted.Behaviour {
		return scripted.Behaviour{Mute: true, Workload: "none"}
	}})
	p.hypervisor = hypervisor.New(hypervisor.Config{VMM: p, Slots: slots(entries), Rand: &uids{entries: entries}})
	return p
}

// Start implements hypervisor.VMM.
func (p *player) Start(ctx context.Context, spec hypervisor.VMSpec) (hypervisor.VM, error) {
	if p.refuse {
		return nil, errors.New("as recorded")
	}
	return p.machines.Start(ctx, spec)
}

func (p *player) close() {
	for _, s := range p.sessions {
		s.close()
	}
	p.hypervisor.Close()
	p.net.Close()
}

// slots is how many slots the recorded hypervisor had, as far as can be told.
func slots(entries []Entry) int {
	const plenty = 1 << 16
	used := make(map[uint64]int)        // slot to session
	of := make(map[int]map[uint64]bool) // session to its slots
	for i := range entries {
		e := &entries[i]
		switch {
		case e.What == Detached || e.What == Disabled || e.What == Reset:
			for uid := range of[e.Session] {
				delete(used, uid)
			}
			delete(of, e.Session)
		case e.Reply == nil:
		case e.command() == pcidev.CmdSlotAlloc && e.Reply.RC == -int32(unix.ENOSPC):
			return max(len(used), 1)
		case e.command() == pcidev.CmdSlotAlloc && e.Reply.RC == 0:
			used[e.Reply.SlotUID] = e.Session
			if of[e.Session] == nil {
				of[e.Session] = make(map[uint64]bool)
			}
			of[e.Session][e.Reply.SlotUID] = true
		case e.command() == pcidev.CmdSlotFree && e.Reply.RC == 0:
			delete(of[used[e.Request[0]]], e.Request[0])
			delete(used, e.Request[0])
		}
	}
	return plenty
}

// uids gives the hypervisor the recorded slot uids, and others when there are no more.
type uids struct {
	entries []Entry
	more    uint64
}

func (u *uids) Read(p []byte) (int, error) {
	if len(p) < 8 {
		return 0, io.ErrShortBuffer
	}
	for len(u.entries) > 0 {
		e := u.entries[0]
		u.entries = u.entries[1:]
		if e.command() == pcidev.CmdSlotAlloc && e.Reply != nil && e.Reply.RC == 0 {
			binary.LittleEndian.PutUint64(p, e.Reply.SlotUID)
			return 8, nil
		}
	}
	u.more++
	binary.LittleEndian.PutUint64(p, ^u.more)
	return 8, nil
}

// play replays one entry.
func (p *player) play(i int) ([]Difference, error) {
	e := p.entries[i]
	time.Sleep(min(e.At-time.Since(p.began), maxTime))
	s := p.sessions[e.Session]
	if s == nil || e.What == Attached {
		if s != nil {
			s.close()
		}
		var err error
		if s, err = newSession(p.hypervisor); err != nil {
			return nil, err
		}
		p.sessions[e.Session] = s
	}
	switch e.What {
	case Attached:
		return nil, nil
	case Detached:
		s.close()
		delete(p.sessions, e.Session)
		return nil, nil
	case Disabled, Reset:
		return nil, s.restart()
	}
	req, err := p.prepare(s, &e)
	if err != nil {
		return nil, err
	}
	reply, err := s.do(req)
	if err != nil || e.Reply == nil {
		return nil, err
	}
	return compare(i, &e, replyOf(reply)), nil
}

// prepare makes the model's world such as the recorded one must have been, and returns the request.
func (p *player) prepare(s *session, e *Entry) (pcidev.Request, error) {
	req, err := e.request()
	if err != nil || e.Reply == nil {
		return req, err
	}
	if e.Reply.State == pcidev.StateStopped && e.Reply.RC == 0 {
		p.end(e.Reply.SlotUID)
	}
	switch r := req.(type) {
	case pcidev.SlotAddMemReq:
		if e.Reply.RC != -int32(unix.EFAULT) {
			s.memory.share(r.PAddr, r.Size)
		}
		if e.Reply.RC == 0 {
			s.regions[r.SlotUID] = append(s.regions[r.SlotUID], [2]uint64{r.PAddr, r.Size})
		}
	case pcidev.EnclaveStartReq:
		p.refuse = e.Reply.RC == -int32(unix.EIO)
		if e.Reply.RC == 0 && r.EnclaveCID == 0 {
			r.EnclaveCID = e.Reply.EnclaveCID // which depends on who was there before
		}
		return r, s.load(r.SlotUID)
	}
	return req, nil
}

// end ends an enclave that runs.
func (p *player) end(uid uint64) {
	slot, ok := p.hypervisor.Slot(uid)
	if !ok || slot.State != pcidev.StateRunning {
		return
	}
	p.machines.Kill(uint32(slot.EnclaveCID))
	bubble.Wait()
}

// compare reports where replies differ.
func compare(i int, e *Entry, now *Reply) (differences []Difference) {
	was := e.Reply
	for _, f := range []struct {
		name     string
		was, now uint64
	}{
		{"rc", uint64(-int64(was.RC)), uint64(-int64(now.RC))}, {"slot_uid", was.SlotUID, now.SlotUID}, {"enclave_cid", was.EnclaveCID, now.EnclaveCID},
		{"slot_count", was.SlotCount, now.SlotCount}, {"mem_regions", was.MemRegions, now.MemRegions}, {"mem_size", was.MemSize, now.MemSize},
		{"nr_vcpus", was.NrVCPUs, now.NrVCPUs}, {"flags", was.Flags, now.Flags}, {"state", uint64(was.State), uint64(now.State)},
	} {
		if f.was != f.now {
			differences = append(differences, Difference{i, *e, f.name, f.was, f.now})
		}
	}
	return differences
}

// standIn is an image that the hypervisor takes.
var standIn = func() []byte {
	var b buffer
	_, err := eif.Build(context.Background(), &b, eif.BuildSpec{
		Kernel: strings.NewReader("stand-in"), Cmdline: "none", Ramdisks: []io.Reader{strings.NewReader("none")},
	})
	if err != nil {
		panic(err)
	}
	return b.bytes
}()

// buffer is an io.WriterAt in memory.
type buffer struct{ bytes []byte }

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(b.bytes) {
		b.bytes = append(b.bytes, make([]byte, end-len(b.bytes))...)
	}
	return copy(b.bytes[off:], p), nil
}
