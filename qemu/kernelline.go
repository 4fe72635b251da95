package qemu

import (
	"fmt"
	"strings"
)

// kernelLine is the command line that the kernel gets: the image's, with the words that this machine needs.
func kernelLine(cfg *Config, accel Accel, machine MachineType) string {
	var words []string
	if accel == TCG {
		words = append(words, TCGCmdline())
	}
	if machine == Nitro {
		for slot := range virtioDevices(cfg) {
			words = append(words, deviceWord(slot))
		}
	}
	if rebootsByBIOS(cfg.Cmdline) {
		words = append(words, "reboot=k")
	}
	return addWords(cfg.Cmdline, strings.Join(words, " "))
}

// rebootsByBIOS reports whether the command line has the kernel reboot by a jump to the firmware (kernel/reboot.c, reboot_setup):
// this one would start the kernel again, in the same machine, where a reboot is an enclave's end.
func rebootsByBIOS(line string) (bios bool) {
	end, _ := ownEnd(line)
	for word := range strings.FieldsSeq(line[:end]) {
		value, found := strings.CutPrefix(word, "reboot=")
		for part := range strings.SplitSeq(value, ",") {
			if found && part != "" && strings.Contains("abketp", part[:1]) { // the ways; other letters are no ways
				bios = part[0] == 'b'
			}
		}
	}
	return bios
}

// checkKernelLine refuses a command line of which the kernel would not read the end.
func checkKernelLine(cfg *Config, accel Accel, machine MachineType) error {
	line := kernelLine(cfg, accel, machine)
	if len(line) < maxCmdline {
		return nil
	}
	return fmt.Errorf("kernel command line of %d bytes, and %d more for this machine's devices and clock: the kernel reads %d",
		len(cfg.Cmdline), len(line)-len(cfg.Cmdline), maxCmdline-1)
}

// addWords adds words to a kernel command line where the kernel takes them for its own: before a "--", behind which all is
// the init's, and outside of quotes (lib/cmdline.c, next_arg; kernel/params.c, parse_args).
func addWords(line, words string) string {
	if words == "" {
		return line
	}
	end, quoted := ownEnd(line)
	own, inits := line[:end], line[end:]
	if quoted {
		own += `"` // the kernel takes it as the end of the last value, as it does the line's end
	}
	own = strings.TrimSpace(strings.TrimRight(own, kernelSpaces) + " " + words)
	if inits != "" {
		own += " "
	}
	return own + inits
}

// kernelSpaces separate the words of a kernel's command line (lib/ctype.c).
const kernelSpaces = " \t\n\v\f\r"

// ownEnd finds where the kernel's own words end, and whether a quote is open there.
func ownEnd(line string) (end int, quoted bool) {
	word := 0 // where the current one begins
	for i := range len(line) + 1 {
		switch {
		case i < len(line) && line[i] == '"':
			quoted = !quoted
		case i == len(line) || !quoted && strings.IndexByte(kernelSpaces, line[i]) >= 0:
			if strings.Trim(line[word:i], `"`) == "--" {
				return word, false
			}
			word = i + 1
		}
	}
	return len(line), quoted
}
