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
	name    string   // as the kernel knows it
	needs   []string // names of the modules that must be loaded before it
	aliases []string // patterns of the other names by which the kernel asks for it
	data    []byte   // the ELF file
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
	m.needs, m.aliases, err = moduleInfo(m.data)
	return m, err
}

// moduleInfo reads a module's "depends" and "alias" from its section .modinfo: strings KEY=VALUE, each ended by a zero
// byte (include/linux/moduleparam.h, scripts/mod/modpost.c).
func moduleInfo(data []byte) (needs, aliases []string, err error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, nil, errors.New("is no ELF file")
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, nil, errors.New("has no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, nil, fmt.Errorf("section .modinfo: %w", err)
	}
	for tag := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(tag, "=")
		switch {
		case value == "" || strings.ContainsAny(value, " \n"):
		case key == "depends":
			needs = strings.Split(strings.ReplaceAll(value, "-", "_"), ",")
		case key == "alias":
			aliases = append(aliases, value)
		}
	}
	return needs, aliases, nil
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

// The files that tell init of the modules, all in the directory of the modules: in which order to load those that are
// loaded at start; and, in kmod's formats (modules.dep(5), modules.alias, modules.devname), of those loaded on demand
// what each needs, the names that the kernel asks for it by, and the device that it is for before it is loaded.
const (
	modulesDir   = "modules/"
	orderFile    = modulesDir + "order"
	depFile      = modulesDir + "modules.dep"
	aliasFile    = modulesDir + "modules.alias"
	devicesFile  = modulesDir + "modules.devname"
	onDemandKind = ".ko.gz"
)

// bootModules returns the files of the modules that are loaded at start, in their order, and the list of that order.
func bootModules(modules []module) []Entry {
	if len(modules) == 0 {
		return nil
	}
	var order []byte
	var entries []Entry
	for _, m := range modules {
		name := m.name + ".ko"
		order = append(append(order, name...), '\n')
		entries = append(entries, file(modulesDir+name, 0o644, m.data))
	}
	return append(entries, file(orderFile, 0o644, order))
}

// onDemandModules returns the files of those modules that are not among the loaded ones, each compressed so that only
// what is used is unpacked, and their lists.
func onDemandModules(modules, loaded []module) ([]Entry, error) {
	var entries []Entry
	var dep, alias, devices bytes.Buffer
	done := map[string]bool{}
	for _, m := range loaded {
		done[m.name] = true
	}
	for _, m := range modules {
		if done[m.name] {
			continue
		}
		data, err := compress(m.data)
		if err != nil {
			return nil, fmt.Errorf("kernel module %s: compress: %w", m.name, err)
		}
		entries = append(entries, file(modulesDir+m.name+onDemandKind, 0o644, data))
		fmt.Fprintf(&dep, "%s%s:", m.name, onDemandKind)
		for _, need := range m.needs {
			if !done[need] {
				fmt.Fprintf(&dep, " %s%s", need, onDemandKind)
			}
		}
		dep.WriteByte('\n')
		for _, a := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, m.name)
		}
		if name, number, ok := m.device(); ok {
			fmt.Fprintf(&devices, "%s %s %s\n", m.name, name, number)
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	return append(entries,
		file(depFile, 0o644, dep.Bytes()), file(aliasFile, 0o644, alias.Bytes()), file(devicesFile, 0o644, devices.Bytes()),
	), nil
}

// device returns the name below /dev and the number, as modules.devname has it ("c10:200"), of the character device
// whose opening loads the module (include/linux/miscdevice.h, MODULE_ALIAS_MISCDEV with a "devname:").
func (m module) device() (name, number string, ok bool) {
	for _, a := range m.aliases {
		if text, ok := strings.CutPrefix(a, "devname:"); ok {
			name = text
		}
		if text, ok := strings.CutPrefix(a, "char-major-"); ok {
			number = "c" + strings.Replace(text, "-", ":", 1)
		}
	}
	return name, number, name != "" && number != "" && !strings.Contains(number, "*")
}

// compress compresses a module as init unpacks it. The header carries no time.
func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
