package pack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of the kernel's loaders.
const (
	maxShebang = 256              // BINPRM_BUF_SIZE in linux/binfmts.h: of a script's first line
	progSize   = 56               // sizeof(struct elf64_phdr)
	maxProgs   = 65536 / progSize // of program headers (load_elf_phdrs in fs/binfmt_elf.c)
)

// interpreterOf returns the path of the interpreter that a program names: of a script the one behind "#!", of an ELF
// program its dynamic linker; "" where it has none. The error says why the kernel of an enclave cannot start it.
func interpreterOf(e Entry) (string, error) {
	first, err := readPart(e, 0, maxShebang)
	switch {
	case err != nil:
		return "", err
	case len(first) == 0:
		return "", errors.New("it is empty")
	case bytes.HasPrefix(first, []byte("#!")):
		return shebang(first)
	case bytes.HasPrefix(first, []byte(elf.ELFMAG)):
		return elfInterpreter(e, first)
	}
	return "", errors.New(`it is neither an ELF program nor a script that begins with "#!"`)
}

// readPart reads up to n bytes of a file's content from an offset on.
func readPart(e Entry, offset uint64, n int) ([]byte, error) {
	if e.Size <= 0 || offset >= uint64(e.Size) {
		return nil, nil
	}
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, int64(offset)); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, int64(n)))
}

// shebang reads a script's first line, as load_script in fs/binfmt_script.c does.
func shebang(first []byte) (string, error) {
	line, _, _ := bytes.Cut(first[2:], []byte("\n"))
	line, _, _ = bytes.Cut(bytes.Trim(line, " \t"), []byte{0})
	if end := bytes.IndexAny(line, " \t"); end >= 0 {
		line = line[:end]
	}
	if len(line) == 0 {
		return "", errors.New(`its "#!" names no interpreter`)
	}
	return string(line), nil
}

// elfInterpreter reads an ELF program's headers, as load_elf_binary in fs/binfmt_elf.c does: sections do not matter.
func elfInterpreter(e Entry, first []byte) (string, error) {
	var h elf.Header64
	if _, err := binary.Decode(first, binary.LittleEndian, &h); err != nil {
		return "", errors.New("it is cut off inside its ELF header")
	}
	machine := elf.Machine(h.Machine)
	if elf.Data(h.Ident[elf.EI_DATA]) == elf.ELFDATA2MSB {
		machine = elf.Machine(h.Machine>>8 | h.Machine<<8)
	}
	if machine == elf.EM_386 {
		return "", nil // CONFIG_IA32_EMULATION, which AWS's enclave kernels have, starts it
	}
	if machine != elf.EM_X86_64 || elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return "", fmt.Errorf("it is a program for %s: enclaves here are x86_64, build it for linux/amd64", machineName(machine))
	}
	if kind := elf.Type(h.Type); kind != elf.ET_EXEC && kind != elf.ET_DYN {
		return "", fmt.Errorf("it is an ELF file of the type %v, not a program: link it", kind)
	}
	if h.Phentsize != progSize || h.Phnum == 0 || h.Phnum > maxProgs {
		return "", errors.New("its ELF header is damaged")
	}
	progs := make([]elf.Prog64, h.Phnum)
	text, err := readPart(e, h.Phoff, int(h.Phnum)*progSize)
	if err != nil {
		return "", err
	}
	if _, err := binary.Decode(text, binary.LittleEndian, progs); err != nil {
		return "", errors.New("it is cut off inside its program headers")
	}
	for _, p := range progs {
		if elf.ProgType(p.Type) == elf.PT_INTERP {
			return interpreterName(e, p)
		}
	}
	return "", nil
}

// interpreterName reads what a PT_INTERP points at. The kernel takes 2 to PATH_MAX bytes, the last of them zero.
func interpreterName(e Entry, p elf.Prog64) (string, error) {
	if p.Filesz < 2 || p.Filesz > maxPath {
		return "", errors.New("the name of its dynamic linker is damaged")
	}
	name, err := readPart(e, p.Off, int(p.Filesz))
	if err != nil {
		return "", err
	}
	text, _, ended := strings.Cut(string(name), "\x00")
	if uint64(len(name)) != p.Filesz || !ended || text == "" {
		return "", errors.New("the name of its dynamic linker is damaged")
	}
	return text, nil
}

// machineName names a processor for people.
func machineName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "x32"
	case elf.EM_AARCH64:
		return "aarch64"
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
}
