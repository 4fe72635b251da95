package pcidev

// Identity of the device: PCI_VENDOR_ID_AMAZON of <linux/pci_ids.h>,
// PCI_DEVICE_ID_NE and PCI_BAR_NE of ne_pci_dev.h.
const (
	VendorID = 0x1d0f
	DeviceID = 0xe4c1
	BAR      = 3
)

// Sizes of the BARs, in bytes. MSIXBAR holds nothing but the MSI-X structures.
const (
	BARSize     = 0x4000
	MSIXBAR     = 0
	MSIXBARSize = 0x1000
	MSIXTable   = 0x000 // offset of the MSI-X table in MSIXBAR
	MSIXPBA     = 0x800 // offset of the Pending Bit Array in MSIXBAR
)

// Registers in BAR 3, by offset (ne_pci_dev.h, "Device registers").
const (
	NEEnable   = 0x0000 // 1 byte, read/write: NEEnableOn or NEEnableOff
	NEVersion  = 0x0002 // 2 bytes, read/write: the version of the device to use
	NECommand  = 0x0004 // 4 bytes, write-only: runs the request in NESendData
	NEEvtCnt   = 0x000c // 4 bytes, read-only: counter of replies, << 16 counter of events
	NESendData = 0x0010 // 240 bytes, read/write: request payload
	NERecvData = 0x0100 // 240 bytes, read-only: reply payload

	NEEnableOff  = 0x00
	NEEnableOn   = 0x01
	NEVersionMax = 0x0001

	NESendDataSize = 240
	NERecvDataSize = 240
)

// MSI-X vectors (ne_pci_dev.h, "MSI-X interrupt vectors").
const (
	NEVecReply = 0 // a command's reply is in NERecvData
	NEVecEvent = 1 // an enclave changed its state by itself
	NumVectors = 2
)
