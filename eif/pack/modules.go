package pack

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModuleSize bounds a kernel module, compressed or not, in bytes.
const maxModuleSize = 64 << 20

// module is a kernel module.
type module struct {
	name  string   // as the kernel knows it
	needs []string // names of the modules that must be loaded before it
	data  []byte   // the ELF file
}

// readModules reads kernel modules (.ko, or compressed as .ko.xz, .ko.zst or .ko.gz) and returns them in an order in
// which they can be loaded. All that a module needs must be among them.
func readModules(paths []string) ([]module, error) {
	byName := map[string]module{}
	for _, path := range paths {
		m, err := readModule(path)
		if err != nil {
			return nil, fmt.Errorf("kernel module %s: %w", path, err)
		}
		byName[m.name] = m
	}
	var (
		order []module
		seen  = map[string]bool{}
		visit func(name string) error
	)
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		for _, need := range byName[name].needs {
			if _, ok := byName[need]; !ok {
				return fmt.Errorf("kernel module %s needs module %s: add it", name, need)
			}
			if err := visit(need); err != nil {
				return err
			}
		}
		order = append(order, byName[name])
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func readModule(path string) (m module, err error) {
	f, err := os.Open(path)
	if err != nil {
		return m, plain(err)
	}
	defer f.Close()
	data, err := readLimited(f)
	if err == nil {
		m.data, err = decompress(data)
	}
	if err != nil {
		return m, err
	}
	m.name, _, _ = strings.Cut(filepath.Base(path), ".ko")
	m.name = strings.ReplaceAll(m.name, "-", "_")
	m.needs, err = moduleNeeds(m.data)
	return m, err
}

// moduleNeeds reads a module's "depends" from its section .modinfo: strings KEY=VALUE, each ended by a zero byte
// (include/linux/moduleparam.h, scripts/mod/modpost.c).
func moduleNeeds(data []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("is no ELF file")
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("has no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("section .modinfo: %w", err)
	}
	for tag := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(tag, "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}

// decompress undoes the compression that the data's first bytes tell of, if any.
func decompress(data []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(data, []byte("\xfd7zXZ\x00")):
		r, err = xz.NewReader(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte("\x28\xb5\x2f\xfd")):
		d, zerr := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderMaxMemory(maxModuleSize), zstd.WithDecoderConcurrency(1))
		if zerr == nil {
			defer d.Close()
		}
		r, err = d, zerr
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		r, err = gzip.NewReader(bytes.NewReader(data))
	default:
		return data, nil
	}
	if err == nil {
		data, err = readLimited(r)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return data, nil
}

func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxModuleSize+1))
	if err == nil && len(data) > maxModuleSize {
		err = fmt.Errorf("is longer than %d MiB", maxModuleSize>>20)
	}
	return data, err
}

// moduleEntries returns the modules' files, and the file that tells init their order.
func moduleEntries(modules []module) []Entry {
	if len(modules) == 0 {
		return nil
	}
	var order []byte
	var entries []Entry
	for _, m := range modules {
		name := m.name + ".ko"
		order = append(append(order, name...), '\n')
		entries = append(entries, file("modules/"+name, 0o644, m.data))
	}
	return append(entries, file("modules/order", 0o644, order))
}
