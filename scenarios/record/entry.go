// Package record keeps what a driver and the NE PCI device said to each other: it records a real session, also that of
// a primary VM, replays it against the device's model, and makes a scenario of it.
//
// A recording is a text file of JSON objects, one a line and an Entry each, in the order in which they happened.
package record

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nesim/nesim/pcidev"
)

// Entry is a command that a driver gave and the reply that it read, or something else that happened to its device.
type Entry struct {
	At      time.Duration `json:"at_ns"`   // since the recording's beginning, in nanoseconds: when the reply was read
	Session int           `json:"session"` // the driver's, counted from 1
	What    string        `json:"what"`    // a command's name in ne_pci_dev.h, or one of the words below
	// Request is the command's payload as 64-bit numbers, in ne_pci_dev.h's order: slot_uid, paddr, size for SLOT_ADD_MEM.
	Request []uint64 `json:"request,omitempty"`
	Reply   *Reply   `json:"reply,omitempty"`
}

// What happens to a device beside commands.
const (
	Attached = "attached" // a driver has connected
	Disabled = "disabled" // NE_ENABLE was switched off
	Reset    = "reset"    // vfio-user's DEVICE_RESET
	Detached = "detached" // the driver has gone
)

// Reply is a reply as it is recorded; see pcidev.Reply.
type Reply struct {
	RC         int32  `json:"rc"`
	SlotUID    uint64 `json:"slot_uid,omitempty"`
	EnclaveCID uint64 `json:"enclave_cid,omitempty"`
	SlotCount  uint64 `json:"slot_count,omitempty"`
	MemRegions uint64 `json:"mem_regions,omitempty"`
	MemSize    uint64 `json:"mem_size,omitempty"`
	NrVCPUs    uint64 `json:"nr_vcpus,omitempty"`
	Flags      uint64 `json:"flags,omitempty"`
	State      uint16 `json:"state,omitempty"`
}

// Limits of a recording, which may come from anywhere.
const (
	maxEntry   = 4 << 10 // bytes of a line
	maxEntries = 1 << 20
	maxWords   = 3                         // of a request
	maxAt      = 10 * 365 * 24 * time.Hour // replayed on a virtual clock, which ends in the year 2262
)

var errTooMany = fmt.Errorf("more than %d entries", maxEntries)

// Read reads a recording. An error names the line, but for the context's when that is done.
func Read(ctx context.Context, r io.Reader) (entries []Entry, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxEntry), maxEntry)
	lines.Split(wholeLines)
	for n := 1; lines.Scan(); n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var e Entry
		switch err := json.Unmarshal(lines.Bytes(), &e); {
		case err != nil:
			return nil, fmt.Errorf("line %d is no entry of a recording: %w", n, err)
		case len(entries) == maxEntries:
			return nil, errTooMany
		}
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		entries = append(entries, e)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d has more than %d bytes: this is no recording", len(entries)+1, maxEntry)
	}
	return entries, lines.Err()
}

// wholeLines is bufio.ScanLines, but for a last line without an end that is no JSON: a piece of an entry that was being
// written when the machine stopped.
func wholeLines(data []byte, atEOF bool) (advance int, line []byte, err error) {
	advance, line, err = bufio.ScanLines(data, atEOF)
	if atEOF && advance > 0 && data[advance-1] != '\n' && !json.Valid(line) {
		return len(data), nil, nil
	}
	return advance, line, err
}

func (e *Entry) check() error {
	switch {
	case e.Session < 1 || e.At < 0 || e.At > maxAt:
		return fmt.Errorf("session %d at %v: sessions count from 1, and times from 0 to %v", e.Session, e.At, maxAt)
	case e.What == Attached, e.What == Disabled, e.What == Reset, e.What == Detached:
		return nil
	case e.command() == pcidev.CmdInvalid:
		return fmt.Errorf("%q is no command of the device", e.What)
	case len(e.Request) > maxWords:
		return fmt.Errorf("a request has %d numbers, not %d", maxWords, len(e.Request))
	}
	_, err := e.request()
	return err
}

// command is the entry's command, CmdInvalid where it is none.
func (e *Entry) command() pcidev.Command {
	for c := pcidev.CmdInvalid + 1; c < pcidev.CmdMax; c++ {
		if c.String() == e.What {
			return c
		}
	}
	return pcidev.CmdInvalid
}

// request is the command's request.
func (e *Entry) request() (pcidev.Request, error) {
	payload := []byte{}
	for _, word := range e.Request {
		payload = binary.LittleEndian.AppendUint64(payload, word)
	}
	if c := e.command(); c == pcidev.CmdSlotAlloc || c == pcidev.CmdSlotCount {
		payload = []byte{0} // one unused byte
	}
	return pcidev.DecodeRequest(e.command(), payload)
}

// entryOf makes an entry of a command and its reply.
func entryOf(req pcidev.Request, reply pcidev.Reply) Entry {
	e := Entry{What: req.Command().String(), Reply: replyOf(reply)}
	for b := req.Append(nil); len(b) >= 8; b = b[8:] {
		e.Request = append(e.Request, binary.LittleEndian.Uint64(b))
	}
	return e
}

func replyOf(r pcidev.Reply) *Reply {
	return &Reply{r.RC, r.SlotUID, r.EnclaveCID, r.SlotCount, r.MemRegions, r.MemSize, r.NrVCPUs, r.Flags, r.State}
}
