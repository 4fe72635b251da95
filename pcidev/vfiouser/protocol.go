package vfiouser

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Command is a message's command field (vfio-user.rst, "Commands").
type Command uint16

// Commands of the protocol. Those from client to server that this package does
// not serve are answered with ENOTSUP.
const (
	CmdVersion              Command = 1
	CmdDMAMap               Command = 2
	CmdDMAUnmap             Command = 3
	CmdDeviceGetInfo        Command = 4
	CmdDeviceGetRegionInfo  Command = 5
	CmdDeviceGetRegionIOFDs Command = 6
	CmdDeviceGetIRQInfo     Command = 7
	CmdDeviceSetIRQs        Command = 8
	CmdRegionRead           Command = 9
	CmdRegionWrite          Command = 10
	CmdDMARead              Command = 11
	CmdDMAWrite             Command = 12
	CmdDeviceReset          Command = 13
	CmdRegionWriteMulti     Command = 15
	CmdDeviceFeature        Command = 16
)

var commandNames = [...]string{
	CmdVersion:              "VERSION",
	CmdDMAMap:               "DMA_MAP",
	CmdDMAUnmap:             "DMA_UNMAP",
	CmdDeviceGetInfo:        "DEVICE_GET_INFO",
	CmdDeviceGetRegionInfo:  "DEVICE_GET_REGION_INFO",
	CmdDeviceGetRegionIOFDs: "DEVICE_GET_REGION_IO_FDS",
	CmdDeviceGetIRQInfo:     "DEVICE_GET_IRQ_INFO",
	CmdDeviceSetIRQs:        "DEVICE_SET_IRQS",
	CmdRegionRead:           "REGION_READ",
	CmdRegionWrite:          "REGION_WRITE",
	CmdDMARead:              "DMA_READ",
	CmdDMAWrite:             "DMA_WRITE",
	CmdDeviceReset:          "DEVICE_RESET",
	CmdRegionWriteMulti:     "REGION_WRITE_MULTI",
	CmdDeviceFeature:        "DEVICE_FEATURE",
}

func (c Command) String() string {
	if int(c) < len(commandNames) && commandNames[c] != "" {
		return commandNames[c]
	}
	return "command " + strconv.Itoa(int(c))
}

// Message flags (vfio-user.rst, "Header").
const (
	flagTypeMask = 0xf
	flagReply    = 0x1
	flagNoReply  = 0x10
	flagError    = 0x20
)

// DMA_MAP and DMA_UNMAP flags (vfio-user.rst; VFIO_DMA_UNMAP_FLAG_ALL of <linux/vfio.h>).
const (
	DMARead  uint32 = 1 << 0
	DMAWrite uint32 = 1 << 1

	dmaUnmapAll uint32 = 1 << 1
)

// Device, region and interrupt flags, from <linux/vfio.h>.
const (
	DeviceFlagReset uint32 = 1 << 0 // VFIO_DEVICE_FLAGS_RESET
	DeviceFlagPCI   uint32 = 1 << 1 // VFIO_DEVICE_FLAGS_PCI

	RegionFlagRead  uint32 = 1 << 0 // VFIO_REGION_INFO_FLAG_READ
	RegionFlagWrite uint32 = 1 << 1 // VFIO_REGION_INFO_FLAG_WRITE

	IRQFlagEventfd  uint32 = 1 << 0 // VFIO_IRQ_INFO_EVENTFD
	IRQFlagMaskable uint32 = 1 << 1 // VFIO_IRQ_INFO_MASKABLE

	irqDataNone      uint32 = 1 << 0 // VFIO_IRQ_SET_DATA_NONE
	irqDataBool      uint32 = 1 << 1 // VFIO_IRQ_SET_DATA_BOOL
	irqDataEventfd   uint32 = 1 << 2 // VFIO_IRQ_SET_DATA_EVENTFD
	irqActionMask    uint32 = 1 << 3 // VFIO_IRQ_SET_ACTION_MASK
	irqActionUnmask  uint32 = 1 << 4 // VFIO_IRQ_SET_ACTION_UNMASK
	irqActionTrigger uint32 = 1 << 5 // VFIO_IRQ_SET_ACTION_TRIGGER
)

// Region indexes of a PCI device (VFIO_PCI_*_REGION_INDEX of <linux/vfio.h>).
// BAR n has index n.
const (
	RegionBAR0   uint32 = 0
	RegionROM    uint32 = 6
	RegionConfig uint32 = 7
	NumRegions          = 9
)

// Interrupt indexes of a PCI device (VFIO_PCI_*_IRQ_INDEX of <linux/vfio.h>).
const (
	IRQMSIX uint32 = 2
	IRQErr  uint32 = 3
	NumIRQs        = 5
)

// Limits of this implementation. The first three are told to the client in the
// version reply.
const (
	MaxMessageFDs = 16       // descriptors a message may carry
	MaxTransfer   = 64 << 10 // bytes of data in a REGION_READ or REGION_WRITE
	MaxDMAMaps    = 16384    // DMA maps at a time
	MaxDMAFiles   = 512      // different files behind them

	maxVersionData = 4 << 10
	maxMessage     = headerSize + regionAccessSize + MaxTransfer
)

// Sizes of the fixed parts of messages.
const (
	headerSize       = 16
	versionSize      = 4
	dmaMapSize       = 32
	dmaUnmapSize     = 24
	deviceInfoSize   = 16
	regionInfoSize   = 32
	irqInfoSize      = 16
	irqSetSize       = 20
	regionAccessSize = 16
)

var le = binary.LittleEndian

// header is what every message begins with (vfio-user.rst, "Header").
type header struct {
	id    uint16
	cmd   Command
	size  uint32 // whole message, header included
	flags uint32
	errno uint32
}

func parseHeader(b []byte) header {
	return header{
		id:    le.Uint16(b[0:]),
		cmd:   Command(le.Uint16(b[2:])),
		size:  le.Uint32(b[4:]),
		flags: le.Uint32(b[8:]),
		errno: le.Uint32(b[12:]),
	}
}

func (h header) put(b []byte) {
	le.PutUint16(b[0:], h.id)
	le.PutUint16(b[2:], uint16(h.cmd))
	le.PutUint32(b[4:], h.size)
	le.PutUint32(b[8:], h.flags)
	le.PutUint32(b[12:], h.errno)
}

// Error is the peer's error reply to a command. It unwraps to the unix.Errno.
type Error struct {
	Command Command
	Errno   unix.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("vfio-user %v refused: %v", e.Command, e.Errno) }
func (e *Error) Unwrap() error { return e.Errno }
