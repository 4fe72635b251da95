package record

import (
	"context"
	"slices"

	"github.com/nesim/nesim/pcidev"
)

// maxTries bounds how often Shrink asks.
const maxTries = 2000

// Shrink returns as few of the entries as it finds for which holds, which holds for all, still does: it leaves out whole
// slots first, and then single entries. When ctx is done it returns what it has found.
func Shrink(ctx context.Context, entries []Entry, holds func([]Entry) bool) []Entry {
	tries := 0
	try := func(shorter []Entry) bool {
		tries++
		if len(shorter) == len(entries) || tries > maxTries || ctx.Err() != nil || !holds(shorter) {
			return false
		}
		entries = shorter
		return true
	}
	for _, uid := range slotsOf(entries) {
		if tries > maxTries || ctx.Err() != nil {
			return entries
		}
		try(slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.slot() == uid }))
	}
	for size := max(len(entries)/2, 1); ; size /= 2 {
		for at := 0; at < len(entries) && tries <= maxTries; {
			if end := min(at+size, len(entries)); !try(slices.Delete(slices.Clone(entries), at, end)) {
				at = end
			}
		}
		if size <= 1 || tries > maxTries || ctx.Err() != nil {
			return entries
		}
	}
}

// Shows returns a function that reports whether a recording still shows a difference between the recorded device and the model.
func Shows(ctx context.Context, d Difference) func([]Entry) bool {
	return func(entries []Entry) bool {
		differences, err := Replay(ctx, entries)
		return err == nil && slices.ContainsFunc(differences, func(o Difference) bool {
			return o.Entry.What == d.Entry.What && o.Field == d.Field && o.Recorded == d.Recorded && o.Now == d.Now
		})
	}
}

// slotsOf are the slots that a recording has, in the order of their making.
func slotsOf(entries []Entry) (uids []uint64) {
	seen := make(map[uint64]bool)
	for i := range entries {
		if uid := entries[i].slot(); uid != 0 && !seen[uid] {
			seen[uid] = true
			uids = append(uids, uid)
		}
	}
	return uids
}

// slot is the slot that an entry is about, or 0.
func (e *Entry) slot() uint64 {
	switch c := e.command(); {
	case c == pcidev.CmdSlotAlloc && e.Reply != nil:
		return e.Reply.SlotUID
	case c == pcidev.CmdInvalid, c == pcidev.CmdEnclaveGetSlot, c == pcidev.CmdNextSlot, len(e.Request) == 0:
		return 0
	}
	return e.Request[0]
}
