package vfiouser

import (
	"math"

	"golang.org/x/sys/unix"
)

// request is one checked command. Only the fields of its command are set.
type request struct {
	cmd   Command
	flags uint32 // DMA and SET_IRQS flags
	index uint32 // region or interrupt index
	start uint32 // first vector of SET_IRQS
	count uint32 // vectors of SET_IRQS, bytes of a REGION_READ
	addr  uint64 // DMA address
	size  uint64 // of the DMA map
	off   uint64 // in the region, or in the DMA map's file
	data  []byte // REGION_WRITE data, SET_IRQS booleans
	minor uint16 // VERSION
	caps  capabilities
}

// shape is what a command's message may look like. payload is its least size;
// more is allowed only where open is set.
type shape struct {
	payload int
	open    bool
	fds     int
}

var shapes = map[Command]shape{
	CmdVersion:             {payload: versionSize, open: true},
	CmdDMAMap:              {payload: dmaMapSize, fds: 1},
	CmdDMAUnmap:            {payload: dmaUnmapSize},
	CmdDeviceGetInfo:       {payload: deviceInfoSize},
	CmdDeviceGetRegionInfo: {payload: regionInfoSize},
	CmdDeviceGetIRQInfo:    {payload: irqInfoSize},
	CmdDeviceSetIRQs:       {payload: irqSetSize, open: true, fds: MaxMessageFDs},
	CmdRegionRead:          {payload: regionAccessSize},
	CmdRegionWrite:         {payload: regionAccessSize, open: true},
	CmdDeviceReset:         {},
}

// parse checks a message against the protocol, the device's regions and its
// number of MSI-X vectors, and fills r. It is the only place that does; what it
// accepts is in bounds. It returns 0 or the errno to reply.
func (r *request) parse(h header, p []byte, nfds int, regions *[NumRegions]Region, vectors uint32) unix.Errno {
	want, ok := shapes[h.cmd]
	switch {
	case h.flags&flagTypeMask != 0: // a reply to nothing we asked
		return unix.EINVAL
	case !ok:
		return unix.ENOTSUP
	case len(p) < want.payload, len(p) > want.payload && !want.open, nfds > want.fds:
		return unix.EINVAL
	}
	*r = request{cmd: h.cmd}
	switch h.cmd {
	case CmdVersion:
		return r.parseVersion(p)
	case CmdDMAMap:
		return r.parseDMAMap(p)
	case CmdDMAUnmap:
		return r.parseDMAUnmap(p)
	case CmdDeviceGetInfo:
		return atLeast(le.Uint32(p), deviceInfoSize)
	case CmdDeviceGetRegionInfo:
		return r.parseIndex(p, regionInfoSize, NumRegions)
	case CmdDeviceGetIRQInfo:
		if le.Uint32(p[8:]) == IRQErr { // as the kernel answers for a device that is not PCI Express
			return unix.EINVAL
		}
		return r.parseIndex(p, irqInfoSize, NumIRQs)
	case CmdDeviceSetIRQs:
		return r.parseSetIRQs(p, nfds, vectors)
	case CmdRegionRead, CmdRegionWrite:
		return r.parseRegionAccess(p, regions)
	}
	return 0 // DEVICE_RESET has no payload
}

// atLeast checks a message's argsz field.
func atLeast(argsz, least uint32) unix.Errno {
	if argsz < least {
		return unix.EINVAL
	}
	return 0
}

func (r *request) parseVersion(p []byte) unix.Errno {
	if le.Uint16(p) != versionMajor {
		return unix.ENOTSUP
	}
	caps, err := parseCapabilities(p[versionSize:])
	if err != nil {
		return unix.EINVAL
	}
	r.minor, r.caps = min(le.Uint16(p[2:]), versionMinor), caps
	return 0
}

func (r *request) parseDMAMap(p []byte) unix.Errno {
	r.flags, r.off, r.addr, r.size = le.Uint32(p[4:]), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])
	switch {
	case le.Uint32(p) < dmaMapSize, r.flags == 0, r.flags&^(DMARead|DMAWrite) != 0:
		return unix.EINVAL
	case r.size == 0, r.addr > math.MaxUint64-(r.size-1):
		return unix.EINVAL
	case r.off > math.MaxInt64, r.size > math.MaxInt64-r.off: // a file offset is signed
		return unix.EINVAL
	}
	return 0
}

func (r *request) parseDMAUnmap(p []byte) unix.Errno {
	r.flags, r.addr, r.size = le.Uint32(p[4:]), le.Uint64(p[8:]), le.Uint64(p[16:])
	switch {
	case le.Uint32(p) < dmaUnmapSize, r.flags&^dmaUnmapAll != 0:
		return unix.EINVAL
	case r.flags == dmaUnmapAll && (r.addr != 0 || r.size != 0):
		return unix.EINVAL
	}
	return 0
}

func (r *request) parseIndex(p []byte, argsz, n uint32) unix.Errno {
	if r.index = le.Uint32(p[8:]); r.index >= n {
		return unix.EINVAL
	}
	return atLeast(le.Uint32(p), argsz)
}

func (r *request) parseSetIRQs(p []byte, nfds int, vectors uint32) unix.Errno {
	r.flags, r.index, r.start, r.count = le.Uint32(p[4:]), le.Uint32(p[8:]), le.Uint32(p[12:]), le.Uint32(p[16:])
	r.data = p[irqSetSize:]
	if r.index != IRQMSIX {
		vectors = 0
	}
	data, action := r.flags&(irqDataNone|irqDataBool|irqDataEventfd), r.flags&(irqActionMask|irqActionUnmask|irqActionTrigger)
	switch {
	case le.Uint32(p) < irqSetSize, r.index >= NumIRQs, r.flags != data|action:
		return unix.EINVAL
	case action != irqActionMask && action != irqActionUnmask && action != irqActionTrigger:
		return unix.EINVAL
	case r.count == 0:
		return r.parseDisableIRQs(nfds)
	case r.start > vectors, r.count > vectors-r.start:
		return unix.EINVAL
	}
	want, wantFDs := 0, 0
	switch data {
	case irqDataNone:
	case irqDataBool:
		want = int(r.count)
	case irqDataEventfd:
		if action != irqActionTrigger { // signals of masking are for INTx
			return unix.ENOTSUP
		}
		if nfds != 0 { // none: take the vectors' eventfds away
			wantFDs = int(r.count)
		}
	default:
		return unix.EINVAL
	}
	if len(r.data) != want || nfds != wantFDs {
		return unix.EINVAL
	}
	return 0
}

// parseDisableIRQs checks the form that disables every vector of an index.
func (r *request) parseDisableIRQs(nfds int) unix.Errno {
	if r.flags != irqDataNone|irqActionTrigger || r.start != 0 || len(r.data) != 0 || nfds != 0 {
		return unix.EINVAL
	}
	return 0
}

func (r *request) parseRegionAccess(p []byte, regions *[NumRegions]Region) unix.Errno {
	r.off, r.index, r.count, r.data = le.Uint64(p), le.Uint32(p[8:]), le.Uint32(p[12:]), p[regionAccessSize:]
	need, data := RegionFlagRead, uint32(0)
	if r.cmd == CmdRegionWrite {
		need, data = RegionFlagWrite, r.count
	}
	switch {
	case r.index >= NumRegions, r.count == 0, r.count > MaxTransfer, uint64(len(r.data)) != uint64(data):
		return unix.EINVAL
	case r.off > regions[r.index].Size, uint64(r.count) > regions[r.index].Size-r.off:
		return unix.EINVAL
	case regions[r.index].Flags&need == 0:
		return unix.EPERM
	}
	return 0
}
