package pcidev

import (
	"errors"

	"golang.org/x/sys/unix"
)

// quick reports whether a command may run on the goroutine that wrote it.
func (c Command) quick() bool {
	return c != CmdEnclaveStart && c != CmdEnclaveStop && c != CmdSlotFree
}

// submit takes a command. If it returns true the caller runs it, by perform, after
// unlocking; d.busy is then set. d.mu is held.
func (d *Device) submit(c command) (run bool) {
	switch {
	case d.closing:
	case d.power == powerOff, d.power == powerOffSoon:
		d.answer(&Reply{RC: -int32(unix.ENODEV)})
	case d.power == powerOn && !d.busy && len(d.queue) == 0 && c.cmd.quick():
		d.busy = true
		return true
	case len(d.queue) < maxQueue:
		d.queue = append(d.queue, c)
		d.work.Signal()
	}
	return false
}

// answer publishes a reply and raises the reply vector. d.mu is held.
func (d *Device) answer(re *Reply) {
	re.Append(d.recvData[:0])
	d.replies++
	d.irqs.Trigger(NEVecReply)
}

// run is the worker: resets, and the commands that submit leaves to it.
func (d *Device) run() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		switch {
		case d.busy:
			d.work.Wait()
		case d.closing:
			return
		case d.power == powerOffSoon, d.power == powerOffAndOn:
			d.resetSession()
		case len(d.queue) > 0:
			c := d.queue[0]
			d.queue = append(d.queue[:0], d.queue[1:]...)
			d.busy = true
			d.mu.Unlock()
			d.perform(c)
			d.mu.Lock()
		default:
			d.work.Wait()
		}
	}
}

// resetSession ends the way to powerOff. d.mu is held, and let go meanwhile.
func (d *Device) resetSession() {
	d.busy = true
	d.mu.Unlock()
	_ = d.session.Reset() // the driver cannot be told; the device is off either way
	d.mu.Lock()
	d.busy, d.stale = false, false
	d.irqs.ClearPending()
	if d.power == powerOffAndOn {
		d.power = powerOn
	} else {
		d.power = powerOff
	}
}

// perform runs one command, d.busy being set for it, and answers it. The observer comes first, so that it hears of
// commands in their order: the driver sends the next one as soon as it has the answer.
func (d *Device) perform(c command) {
	req, re := d.execute(&c)
	if d.observer != nil {
		d.observer.CommandDone(c.cmd, req, re)
	}
	d.mu.Lock()
	if !d.stale {
		d.answer(&re)
	}
	d.busy, d.stale = false, false
	if d.closing || len(d.queue) > 0 || d.power != powerOn {
		d.work.Signal()
	}
	d.mu.Unlock()
}

// execute has the Session do a command. A refused command's reply says nothing
// but why.
func (d *Device) execute(c *command) (Request, Reply) {
	req, err := DecodeRequest(c.cmd, c.payload[:])
	if err != nil {
		return nil, Reply{RC: resultOf(err)}
	}
	re, err := d.call(req)
	if err != nil {
		re = Reply{RC: resultOf(err)}
	}
	return req, re
}

func (d *Device) call(req Request) (re Reply, err error) {
	s := d.session
	var slot SlotInfo
	switch r := req.(type) {
	case EnclaveStartReq:
		re.SlotUID = r.SlotUID
		re.EnclaveCID, err = s.EnclaveStart(r.SlotUID, r.EnclaveCID, r.Flags)
	case EnclaveGetSlotReq:
		slot, err = s.EnclaveGetSlot(r.EnclaveCID)
		re = slotReply(&slot)
	case EnclaveStopReq:
		re.SlotUID = r.SlotUID
		err = s.EnclaveStop(r.SlotUID)
	case SlotAllocReq:
		re.MemRegions = MaxMemRegions
		re.SlotUID, err = s.SlotAlloc()
	case SlotFreeReq:
		re.SlotUID = r.SlotUID
		err = s.SlotFree(r.SlotUID)
	case SlotAddMemReq:
		re.SlotUID = r.SlotUID
		err = s.SlotAddMem(r.SlotUID, r.PAddr, r.Size)
	case SlotAddVCPUReq:
		re.SlotUID = r.SlotUID
		err = s.SlotAddVCPU(r.SlotUID, r.VCPUID)
	case SlotCountReq:
		re.SlotCount, err = s.SlotCount()
	case NextSlotReq:
		slot, err = s.NextSlot(r.SlotUID)
		re = slotReply(&slot)
	case SlotInfoReq:
		slot, err = s.SlotInfo(r.SlotUID)
		re = slotReply(&slot)
	case SlotAddBulkVCPUsReq:
		re.SlotUID = r.SlotUID
		err = s.SlotAddBulkVCPUs(r.SlotUID, r.NrVCPUs)
	}
	return re, err
}

func slotReply(i *SlotInfo) Reply {
	return Reply{
		SlotUID: i.SlotUID, EnclaveCID: i.EnclaveCID, MemRegions: i.MemRegions,
		MemSize: i.MemSize, NrVCPUs: i.NrVCPUs, Flags: i.Flags, State: i.State,
	}
}

// maxErrno is MAX_ERRNO of <linux/err.h>.
const maxErrno = 4095

// resultOf returns the reply's rc for an error.
func resultOf(err error) int32 {
	var errno unix.Errno
	if errors.As(err, &errno) && errno > 0 && errno <= maxErrno {
		return -int32(errno)
	}
	return -int32(unix.EIO)
}
