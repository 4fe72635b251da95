package oci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// finish turns the image's tree into an enclave's root directory, as nitro-cli's does: there a container engine creates
// a container, which brings files of its own, and linuxkit (src/cmd/linuxkit/moby/build/image.go: exclude, replace and
// touch) drops or replaces them. So a name like localhost is known in every enclave, and no name server is.
func (t *tree) finish() error {
	for _, name := range []string{".dockerenv", "Dockerfile", "dev/console", "etc/hostname"} {
		if err := t.drop(name); err != nil {
			return err
		}
	}
	for _, name := range []string{"dev/pts", "dev/shm", "etc", "proc", "sys"} {
		if err := t.replace(name, directory()); err != nil {
			return err
		}
	}
	for name, f := range map[string]*file{
		"etc/hosts":       textFile("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
		"etc/mtab":        link("/proc/mounts"),
		"etc/resolv.conf": link("/run/resolvconf/resolv.conf"),
	} {
		if err := t.replace(name, f); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a file, where it is one of the tree's.
func (t *tree) drop(name string) error {
	at, err := t.walk(name, 0)
	if errors.Is(err, errNoDirectory) || err == nil && (at == nil || at.node() == nil || at.node().children != nil) {
		return nil
	}
	if err == nil {
		delete(at.dir.children, at.name)
	}
	return err
}

// replace puts a file where an engine has one of its own, whatever the image has there; a directory that is there stays.
func (t *tree) replace(name string, f *file) error {
	at, err := t.walk(name, makeDirs)
	if errors.Is(err, errNoDirectory) {
		return nil // the image has made a file of the directory: it wants none of this
	}
	if err != nil {
		return err
	}
	if n := at.node(); n != nil && f.mode.IsDir() {
		return nil
	}
	_, err = t.put(*at, f)
	return err
}

// textFile returns a small file.
func textFile(text string) *file {
	return &file{mode: 0o644, data: io.NewSectionReader(strings.NewReader(text), 0, int64(len(text)))}
}

// link returns a symbolic link.
func link(target string) *file { return &file{mode: fs.ModeSymlink | 0o777, target: target} }

// workDir returns the working directory's path and makes it where it is missing.
func (t *tree) workDir(dir string) (string, error) {
	dir = path.Clean("/" + dir)
	at, err := t.walk(dir, makeDirs|followLast)
	if err != nil {
		return "", err
	}
	n := at.node()
	if n == nil {
		if n, err = t.put(*at, directory()); err != nil {
			return "", err
		}
	}
	if n.children == nil {
		return "", fmt.Errorf("%.100q is no directory", dir)
	}
	return dir, nil
}
