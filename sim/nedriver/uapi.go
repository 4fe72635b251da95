package nedriver

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The ioctl numbers. Source: include/uapi/linux/nitro_enclaves.h with the encoding of asm-generic/ioctl.h.
const (
	NECreateVM            = 0x8008AE20 // NE_CREATE_VM: _IOR(0xAE, 0x20, __u64)
	NEAddVCPU             = 0xC004AE21 // NE_ADD_VCPU: _IOWR(0xAE, 0x21, __u32)
	NEGetImageLoadInfo    = 0xC010AE22 // NE_GET_IMAGE_LOAD_INFO: _IOWR(0xAE, 0x22, struct ne_image_load_info)
	NESetUserMemoryRegion = 0x4018AE23 // NE_SET_USER_MEMORY_REGION: _IOW(0xAE, 0x23, struct ne_user_memory_region)
	NEStartEnclave        = 0xC010AE24 // NE_START_ENCLAVE: _IOWR(0xAE, 0x24, struct ne_enclave_start_info)
)

// Flags of the ioctls. Source: include/uapi/linux/nitro_enclaves.h.
const (
	NEEIFImage              = 1 // NE_EIF_IMAGE: the image is an EIF
	NEDefaultMemoryRegion   = 0 // NE_DEFAULT_MEMORY_REGION
	NEEnclaveProductionMode = 0 // NE_ENCLAVE_PRODUCTION_MODE
	NEEnclaveDebugMode      = 1 // NE_ENCLAVE_DEBUG_MODE

	imageLoadMaxFlagVal    = 2 // NE_IMAGE_LOAD_MAX_FLAG_VAL
	memoryRegionMaxFlagVal = 1 // NE_MEMORY_REGION_MAX_FLAG_VAL
	enclaveStartMaxFlagVal = 2 // NE_ENCLAVE_START_MAX_FLAG_VAL
)

// EIFLoadOffset is where in enclave memory an EIF begins, in bytes.
// Source: NE_EIF_LOAD_OFFSET, drivers/virt/nitro_enclaves/ne_misc_dev.c.
const EIFLoadOffset = 8 << 20

// UserMemoryRegion is struct ne_user_memory_region: memory of the caller's address space for an enclave.
type UserMemoryRegion struct {
	Flags         uint64 // NEDefaultMemoryRegion
	MemorySize    uint64 // bytes
	UserspaceAddr uint64
}

// StartInfo is struct ne_enclave_start_info.
type StartInfo struct {
	Flags      uint64 // NEEnclaveProductionMode or NEEnclaveDebugMode
	EnclaveCID uint64 // 0 = the hypervisor chooses
}

// Ioctl does an ioctl on the device file as a program does it: arg is an address in the caller's memory. The new
// enclave stands for the file descriptor that NE_CREATE_VM returns. ENOTTY for another command, EFAULT when arg
// is not mapped, and the errors of CreateVM.
func (f *File) Ioctl(cmd uint32, arg uint64) (*Enclave, error) {
	if cmd != NECreateVM {
		return nil, unix.ENOTTY
	}
	e, err := f.CreateVM()
	if err != nil {
		return nil, err
	}
	if err := f.process.copyOut(binary.LittleEndian.AppendUint64(nil, e.SlotUID()), arg); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Ioctl does an ioctl on the enclave's file as a program does it: arg is an address in the caller's memory, where
// the command's structure lies in little-endian order. ENOTTY for another command, EFAULT when arg is not mapped,
// and the errors of the method of the command's name. As in the kernel, a result that cannot be written back does
// not undo the command.
func (e *Enclave) Ioctl(cmd uint32, arg uint64) error {
	var run func(b []byte) error
	switch cmd {
	case NEAddVCPU:
		run = e.ioctlAddVCPU
	case NEGetImageLoadInfo:
		run = e.ioctlGetImageLoadInfo
	case NESetUserMemoryRegion:
		run = e.ioctlSetUserMemoryRegion
	case NEStartEnclave:
		run = e.ioctlStartEnclave
	default:
		return unix.ENOTTY
	}
	b := make([]byte, cmd>>16&0x3fff) // an ioctl number has its structure's size in bits 16 to 29
	if err := e.process.copyIn(b, arg); err != nil {
		return err
	}
	if err := run(b); err != nil {
		return err
	}
	if cmd == NESetUserMemoryRegion {
		return nil
	}
	return e.process.copyOut(b, arg)
}

func (e *Enclave) ioctlAddVCPU(b []byte) error {
	cpu, err := e.AddVCPU(binary.LittleEndian.Uint32(b))
	binary.LittleEndian.PutUint32(b, cpu)
	return err
}

func (e *Enclave) ioctlGetImageLoadInfo(b []byte) error {
	flags := binary.LittleEndian.Uint64(b)
	offset, err := e.GetImageLoadInfo(flags)
	binary.LittleEndian.PutUint64(b[8:], offset)
	return err
}

func (e *Enclave) ioctlSetUserMemoryRegion(b []byte) error {
	return e.SetUserMemoryRegion(UserMemoryRegion{
		Flags:         binary.LittleEndian.Uint64(b),
		MemorySize:    binary.LittleEndian.Uint64(b[8:]),
		UserspaceAddr: binary.LittleEndian.Uint64(b[16:]),
	})
}

func (e *Enclave) ioctlStartEnclave(b []byte) error {
	cid, err := e.StartEnclave(StartInfo{
		Flags:      binary.LittleEndian.Uint64(b),
		EnclaveCID: binary.LittleEndian.Uint64(b[8:]),
	})
	binary.LittleEndian.PutUint64(b[8:], cid)
	return err
}
