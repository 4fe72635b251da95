package setup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is an enclave kernel.
type Kernel struct {
	Image   string // path of the bzImage
	Config  string // path of its configuration, or ""
	Modules string // folder of its modules with a modules.dep, as under /lib/modules; "" if all it needs is built in
	From    string // where it was found, in words for people
	Release string // as `uname -r` in the enclave will say
}

// FindKernel returns the enclave kernel to use: NESIM_KERNEL with NESIM_MODULES, else the one shaped as AWS's, else
// Debian's. The error is one line and says what to do.
func FindKernel() (Kernel, error) {
	if os.Getenv("NESIM_KERNEL") == "" && nitroIsBuilt() {
		return FindNitroKernel()
	}
	return FindDebianKernel()
}

// The kernels that fetch.sh puts into a cache folder.
const (
	nitroImage  = "nitro/vmlinuz"
	debianImage = "kernel/vmlinuz"
)

// nitroIsBuilt reports whether fetch.sh --nitro has built its kernel.
func nitroIsBuilt() bool {
	path, _ := cachedFile(nitroImage)
	return path != ""
}

// FindNitroKernel returns the kernel that fetch.sh --nitro built: shaped as AWS's, it needs no modules.
func FindNitroKernel() (Kernel, error) {
	path, from := cachedFile(nitroImage)
	if path == "" {
		return Kernel{}, errors.New("no enclave kernel shaped as AWS's found: run `make kernel`")
	}
	return openKernel(Kernel{Image: path, Config: filepath.Join(filepath.Dir(path), "config"), From: from})
}

// FindDebianKernel returns NESIM_KERNEL with NESIM_MODULES, else Debian's kernel, which fetch.sh unpacked. Its modules
// include those that a primary VM needs.
func FindDebianKernel() (Kernel, error) {
	if path := os.Getenv("NESIM_KERNEL"); path != "" {
		return openKernel(Kernel{Image: path, Modules: os.Getenv("NESIM_MODULES"), From: "NESIM_KERNEL"})
	}
	path, from := cachedFile(debianImage)
	if path == "" {
		return Kernel{}, errors.New("no enclave kernel found: run `make deps`, or set NESIM_KERNEL (and NESIM_MODULES) to one")
	}
	dir := filepath.Dir(path)
	return openKernel(Kernel{
		Image: path, Config: filepath.Join(dir, "config"), Modules: filepath.Join(dir, "modules"), From: from,
	})
}

// Kernels returns the kernels that enclaves should boot on: NESIM_KERNEL alone, else the one shaped as AWS's, where it
// has been built, and Debian's. Tests of boots run on each.
func Kernels() (kernels []Kernel, err error) {
	if os.Getenv("NESIM_KERNEL") == "" && nitroIsBuilt() {
		nitro, err := FindNitroKernel()
		if err != nil {
			return nil, err
		}
		kernels = append(kernels, nitro)
	}
	debian, err := FindDebianKernel()
	return append(kernels, debian), err
}

// openKernel checks that the kernel and its modules are there, and reads its release.
func openKernel(k Kernel) (_ Kernel, err error) {
	image, err := os.Open(k.Image)
	if err != nil {
		return Kernel{}, fmt.Errorf("enclave kernel: %w", err)
	}
	defer image.Close()
	if k.Release, err = readRelease(image); err != nil {
		return Kernel{}, fmt.Errorf("enclave kernel %s: %w", k.Image, err)
	}
	if k.Modules != "" {
		if _, err := os.Stat(k.modulesDep()); err != nil {
			return Kernel{}, fmt.Errorf("enclave kernel's modules (NESIM_MODULES): %w; depmod writes it", err)
		}
	}
	return k, nil
}

// The x86 boot protocol's setup header (Documentation/arch/x86/boot.rst), little endian: at 0x202 the magic "HdrS",
// and at 0x20e a 16-bit pointer, less 0x200, to the NUL-terminated version, whose first word is the release.
const (
	setupMagicOffset   = 0x202
	setupVersionOffset = 0x20e
	setupVersionBase   = 0x200
)

// readRelease reads the kernel's release from a bzImage.
func readRelease(image io.ReaderAt) (string, error) {
	var header [setupVersionOffset + 2 - setupMagicOffset]byte
	if _, err := image.ReadAt(header[:], setupMagicOffset); err != nil || string(header[:4]) != "HdrS" {
		return "", errors.New("not a bzImage")
	}
	pointer := binary.LittleEndian.Uint16(header[setupVersionOffset-setupMagicOffset:])
	var version [256]byte
	n, _ := image.ReadAt(version[:], setupVersionBase+int64(pointer))
	text, _, whole := bytes.Cut(version[:n], []byte{0})
	words := strings.Fields(string(text))
	if pointer == 0 || !whole || len(words) == 0 {
		return "", errors.New("this bzImage tells no version")
	}
	return words[0], nil
}

func (k Kernel) modulesDep() string { return filepath.Join(k.Modules, "modules.dep") }

// LoadOrder returns the paths of the named modules (.ko, or compressed as the folder has them) and of all that they
// need, in the order of loading. A module that the folder does not have is taken as built in. In names, "-" and "_" are one.
func (k Kernel) LoadOrder(names ...string) ([]string, error) {
	if k.Modules == "" {
		return nil, nil
	}
	text, err := os.ReadFile(k.modulesDep())
	if err != nil {
		return nil, fmt.Errorf("enclave kernel's modules: %w", err)
	}
	order, err := loadOrder(string(text), names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.modulesDep(), err)
	}
	for i, file := range order {
		order[i] = filepath.Join(k.Modules, file)
	}
	return order, nil
}

// loadOrder reads the text of a modules.dep (modules.dep(5)): a line is a module's file and, after a colon, the files
// of all those that it needs, the first to be loaded last.
func loadOrder(text string, names []string) ([]string, error) {
	chains := map[string][]string{}
	for line := range strings.Lines(text) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		chain := strings.Fields(needs)
		slices.Reverse(chain)
		chains[moduleName(file)] = append(chain, file)
	}
	var order []string
	for _, name := range names {
		for _, file := range chains[moduleName(name)] {
			switch {
			case slices.Contains(order, file):
			case !filepath.IsLocal(file):
				return nil, fmt.Errorf("module %q lies outside the folder", file)
			default:
				order = append(order, file)
			}
		}
	}
	return order, nil
}

// moduleName is a module's name as the kernel spells it, given its name or its file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
