package pcidev

// Offsets in the PCI configuration header and the MSI-X capability (PCI Local Bus
// Specification 3.0, 6.1 and 6.8.2; names of <linux/pci_regs.h>).
const (
	pciVendorID          = 0x00
	pciDeviceID          = 0x02
	pciCommand           = 0x04
	pciStatus            = 0x06
	pciClassDevice       = 0x0a
	pciCacheLineSize     = 0x0c
	pciLatencyTimer      = 0x0d
	pciBaseAddress0      = 0x10
	pciSubsystemVendorID = 0x2c
	pciSubsystemID       = 0x2e
	pciCapabilityList    = 0x34
	pciInterruptLine     = 0x3c

	msixCap      = 0x40
	msixFlags    = msixCap + 2
	msixTable    = msixCap + 4
	msixPBA      = msixCap + 8
	pciCapIDMSIX = 0x11
	msixWritable = 0xc000 // enable, mask all

	classSystemOther = 0x0880
	statusCapList    = 1 << 4
	commandWritable  = 1<<1 | 1<<2 | 1<<10 // memory, bus master, INTx disable
)

// ConfigSize is the size of the configuration space, in bytes.
const ConfigSize = 256

// configSpace is the PCI configuration space: bytes, and which bits of them a
// write changes. None of it makes the device act.
type configSpace struct {
	bytes, writable [ConfigSize]byte
}

func newConfigSpace() configSpace {
	var c configSpace
	b, w := c.bytes[:], c.writable[:]
	le.PutUint16(b[pciVendorID:], VendorID)
	le.PutUint16(b[pciDeviceID:], DeviceID)
	le.PutUint16(w[pciCommand:], commandWritable)
	le.PutUint16(b[pciStatus:], statusCapList)
	le.PutUint16(b[pciClassDevice:], classSystemOther)
	w[pciCacheLineSize], w[pciLatencyTimer], w[pciInterruptLine] = 0xff, 0xff, 0xff
	le.PutUint16(b[pciSubsystemVendorID:], VendorID)
	le.PutUint16(b[pciSubsystemID:], DeviceID)

	// Both BARs are 32-bit memory, not prefetchable: their low bits read 0.
	le.PutUint32(w[pciBaseAddress0+4*MSIXBAR:], ^uint32(MSIXBARSize-1))
	le.PutUint32(w[pciBaseAddress0+4*BAR:], ^uint32(BARSize-1))

	b[pciCapabilityList] = msixCap
	b[msixCap] = pciCapIDMSIX
	le.PutUint16(b[msixFlags:], NumVectors-1)
	le.PutUint16(w[msixFlags:], msixWritable)
	le.PutUint32(b[msixTable:], MSIXTable|MSIXBAR)
	le.PutUint32(b[msixPBA:], MSIXPBA|MSIXBAR)
	return c
}

func (c *configSpace) read(off uint64, p []byte) { overlay(p, off, 0, c.bytes[:]) }

func (c *configSpace) write(off uint64, p []byte) {
	for i := range p {
		at := off + uint64(i)
		if at >= ConfigSize {
			return
		}
		w := c.writable[at]
		c.bytes[at] = c.bytes[at]&^w | p[i]&w
	}
}

// msixEntry is the size of an entry of the MSI-X table: address (8 bytes), data
// (4), vector control (4; bit 0 masks).
const msixEntry = 16

// msixTableBytes is the MSI-X table. Under vfio the client keeps the table that
// counts and arms vectors by SET_IRQS; this one only remembers what is written.
type msixTableBytes [NumVectors * msixEntry]byte

func newMSIXTable() msixTableBytes {
	var t msixTableBytes
	for v := range NumVectors {
		t[v*msixEntry+12] = 1 // masked after reset
	}
	return t
}

func (t *msixTableBytes) write(off uint64, p []byte) {
	for i := range p {
		at := off + uint64(i)
		if at >= uint64(len(t)) {
			return
		}
		switch at % msixEntry {
		case 0:
			t[at] = p[i] &^ 3
		case 12:
			t[at] = p[i] & 1
		case 13, 14, 15:
		default:
			t[at] = p[i]
		}
	}
}

// overlay copies to p, which stands for the bytes from off on, the part of reg,
// which stands at regOff, that falls into it.
func overlay(p []byte, off, regOff uint64, reg []byte) {
	switch {
	case regOff >= off && regOff-off < uint64(len(p)):
		copy(p[regOff-off:], reg)
	case regOff < off && off-regOff < uint64(len(reg)):
		copy(p, reg[off-regOff:])
	}
}
