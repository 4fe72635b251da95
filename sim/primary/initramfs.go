package primary

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/eif/pack"
	"github.com/nesim/nesim/sim/primary/plan"
)

// modules are what a primary VM loads.
var modules = []string{"vmw_vsock_virtio_transport", "pvpanic_pci", "nitro_enclaves"}

// buildInitramfs makes the VM's root directory, as a memfd with a cpio archive.
func (c *Config) buildInitramfs(ctx context.Context) (*os.File, error) {
	entries, err := c.entries(ctx)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("nesim-initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd for the initramfs: %w", err)
	}
	file := os.NewFile(uintptr(fd), "nesim-initramfs")
	if err = pack.WriteArchive(ctx, file, entries); err != nil {
		err = fmt.Errorf("pack the primary VM's files: %w", err)
	} else {
		err = c.checkRoom(file)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// checkRoom finds out whether the files fit into the memory that is no huge page: packed, and unpacked beside it.
func (c *Config) checkRoom(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	need := c.HugeMiB + c.HugeGiB<<10 + systemMiB + int(info.Size()>>19)
	if need > c.MemoryMiB {
		return fmt.Errorf("the files of %d MiB do not fit into the primary VM: give it %d MiB of memory", info.Size()>>20, need)
	}
	return nil
}

func (c *Config) entries(ctx context.Context) (entries []pack.Entry, err error) {
	if c.Root != "" {
		if entries, err = pack.FolderEntries(ctx, c.Root); err != nil {
			return nil, err
		}
	}
	for _, copied := range c.Copies {
		more, err := copied.entries(ctx)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	own, err := c.ownEntries()
	return append(entries, own...), err
}

// entries lists the files of a copy. A symbolic link is followed where it is named, and kept below a folder.
func (c Copy) entries(ctx context.Context) ([]pack.Entry, error) {
	to := c.To
	if to == "" {
		abs, err := filepath.Abs(c.From)
		if err != nil {
			return nil, err
		}
		to = path.Join("/root", filepath.Base(abs))
	}
	to = strings.TrimPrefix(path.Clean(to), "/")
	info, err := os.Stat(c.From)
	if err != nil {
		return nil, err
	}
	switch {
	case info.Mode().IsRegular():
		return []pack.Entry{{
			Name: to, Mode: info.Mode(), Size: info.Size(),
			Open: func() (io.ReadCloser, error) { return os.Open(c.From) },
		}}, nil
	case !info.IsDir():
		return nil, fmt.Errorf("%s is neither a file nor a folder", c.From)
	}
	below, err := pack.FolderEntries(ctx, c.From)
	entries := []pack.Entry{{Name: to, Mode: info.Mode()}}
	for _, e := range below {
		e.Name = path.Join(to, e.Name)
		if e.LinkTo != "" {
			e.LinkTo = path.Join(to, e.LinkTo)
		}
		entries = append(entries, e)
	}
	return entries, err
}

// ownEntries lists what we bring: init, its plan, busybox and the kernel's modules.
func (c *Config) ownEntries() ([]pack.Entry, error) {
	program, err := initProgram()
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(c.Busybox)
	if err != nil {
		return nil, fmt.Errorf("busybox: %w", err)
	}
	load, err := c.Kernel.LoadOrder(modules...)
	if err != nil {
		return nil, err
	}
	p := plan.Plan{
		Command: c.Command, Terminal: c.Terminal, Term: c.Term, Rows: c.Rows, Columns: c.Columns,
		CPUPool: c.CPUPool, HugeMiB: c.HugeMiB + c.FarMiB/2, HugeGiB: c.HugeGiB, Hostname: "parent",
	}
	entries := []pack.Entry{own(plan.Init, 0o755, program), own(plan.Bin+"/busybox", 0o755, busybox)}
	for _, file := range append(load, filepath.Join(c.Kernel.Modules, "modules.dep")) {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("kernel module: %w", err)
		}
		entries = append(entries, own(path.Join(plan.Modules, filepath.Base(file)), 0o644, data))
	}
	for _, file := range load {
		p.Modules = append(p.Modules, filepath.Base(file))
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return append(entries, own(plan.File, 0o644, raw)), nil
}

func own(name string, mode fs.FileMode, data []byte) pack.Entry {
	return pack.Entry{
		Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(data)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
}
