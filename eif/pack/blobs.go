package pack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nesim/nesim/eif"
)

// UseBlobs takes kernel, init, the NSM's driver and the command line from a folder in the layout of nitro-cli's
// NITRO_CLI_BLOBS: bzImage, bzImage.config, init, nsm.ko (missing where the kernel has the driver built in) and cmdline.
// What the spec has already stays. nitro-cli's linuxkit, which packs, has no part in this.
func (s *Spec) UseBlobs(dir string) error {
	for name, to := range map[string]*string{"bzImage": &s.Kernel, "init": &s.Init, "nsm.ko": &s.NSM} {
		if *to != "" {
			continue
		}
		path := filepath.Join(dir, name)
		switch _, err := os.Stat(path); {
		case err == nil:
			*to = path
		case name != "nsm.ko" || !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("blobs folder: %w", plain(err))
		}
	}
	if s.Cmdline == "" {
		text, err := readSmall(filepath.Join(dir, "cmdline"))
		if err != nil {
			return fmt.Errorf("blobs folder: %w", err)
		}
		s.Cmdline = strings.TrimSpace(text)
	}
	return nil
}

// DescribeKernel sets the metadata's operating system and kernel version from the kernel's configuration file, as
// nitro-cli does from its third line: "# Linux/x86_64 4.14.177-104.253 Kernel Configuration" is Linux 4.14.177.
func (s *Spec) DescribeKernel(config string) error {
	f, err := openRegular(config)
	if err != nil {
		return fmt.Errorf("kernel configuration: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxConfigSize))
	for range 3 {
		if !lines.Scan() {
			return fmt.Errorf("kernel configuration %s: it has no third line, which tells the kernel's version", config)
		}
	}
	words := strings.FieldsFunc(lines.Text(), func(r rune) bool { return strings.ContainsRune(" /-", r) })
	if len(words) < 4 {
		return fmt.Errorf("kernel configuration %s: its third line does not tell the kernel's version", config)
	}
	s.Metadata.Build.OperatingSystem, s.Metadata.Build.KernelVersion = words[1], words[3]
	return nil
}

// SetCustom sets the user's own metadata from a file of JSON.
func (s *Spec) SetCustom(path string) error {
	f, err := openRegular(path)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, eif.MaxCustomMetadata+1))
	if err != nil {
		return fmt.Errorf("metadata: %w", plain(err))
	}
	s.Metadata.Custom = text
	return nil
}

// readSmall reads a text file.
func readSmall(path string) (string, error) {
	f, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigSize))
	if err != nil {
		return "", plain(err)
	}
	return string(text), nil
}
