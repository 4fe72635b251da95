package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// MinVersion is the oldest QEMU that will do: the first with vhost-user-test-device.
var MinVersion = Version{10, 2, 0}

// The QEMU devices that an enclave is given, by their names in `-device help`. A QEMU without VsockDevice will not do.
const (
	VsockDevice = "vhost-user-vsock-device"
	NSMDevice   = "vhost-user-test-device"
)

// probeTimeout ends a program that was taken for QEMU and does not answer.
const probeTimeout = 30 * time.Second

// QEMU is a QEMU that will do.
type QEMU struct {
	Path    string // the program to start, absolute
	Version Version
	NSM     bool   // it has NSMDevice
	From    string // where it was found, in words for people
	// Sandbox is what this QEMU takes for -sandbox: sandbox, or empty if it was built without seccomp.
	Sandbox string
}

// sandbox confines a QEMU by seccomp: it neither runs programs nor changes its user, its scheduling or its memory policy,
// and makes no system call that current programs do not use (QEMU, qemu-options.hx: -sandbox). Whatever it needs is open
// or connected when the guest begins.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// Version is QEMU's release: major, minor, micro.
type Version [3]int

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

// FindQEMU returns the QEMU to use. Only the one named by NESIM_QEMU, where that is set, is ever considered; it must
// be MinVersion or newer and have VsockDevice. Of the others, one with NSMDevice goes before one without. The error is
// one line and says what to do.
func FindQEMU(ctx context.Context) (QEMU, error) {
	if path := os.Getenv("NESIM_QEMU"); path != "" {
		q, err := probe(ctx, path)
		if err != nil {
			return QEMU{}, fmt.Errorf("NESIM_QEMU: %w; set it to another QEMU, or unset it and run `make deps`", err)
		}
		q.From = "NESIM_QEMU"
		return q, nil
	}
	var unfit error
	var second QEMU // without an NSM
	for _, find := range []func() (path, from string){onPath, inCache} {
		path, from := find()
		if path == "" {
			continue
		}
		q, err := probe(ctx, path)
		q.From = from
		switch {
		case err == nil && q.NSM:
			return q, nil
		case err == nil:
			second = q
		case ctx.Err() != nil:
			return QEMU{}, ctx.Err()
		default:
			unfit = err
		}
	}
	if second.Path != "" {
		return second, nil
	}
	if unfit != nil {
		return QEMU{}, fmt.Errorf("no QEMU >= %v found (%w): run `make deps`, or set NESIM_QEMU to one", MinVersion, unfit)
	}
	return QEMU{}, fmt.Errorf("no QEMU >= %v found: run `make deps`, or set NESIM_QEMU to one", MinVersion)
}

func onPath() (path, from string) {
	path, err := exec.LookPath("qemu-system-x86_64") // never in the working folder: exec.ErrDot
	if err != nil {
		return "", ""
	}
	return path, fromPath
}

func inCache() (path, from string) { return cachedFile("qemu/qemu-system-x86_64") }

// probe checks that the program at path is a QEMU that will do.
func probe(ctx context.Context, path string) (QEMU, error) {
	path, err := exec.LookPath(path)
	if err != nil {
		return QEMU{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return QEMU{}, err
	}
	out, err := output(ctx, path, "--version")
	if err != nil {
		return QEMU{}, err
	}
	version, err := parseVersion(out)
	if err != nil {
		return QEMU{}, fmt.Errorf("%s is no QEMU: %w", path, err)
	}
	if version.Less(MinVersion) {
		return QEMU{}, fmt.Errorf("%s is QEMU %v, older than %v", path, version, MinVersion)
	}
	q := QEMU{Path: path, Version: version, Sandbox: sandbox}
	devices, err := q.Devices(ctx)
	if err != nil && ctx.Err() == nil {
		q.Sandbox = ""
		devices, err = q.Devices(ctx)
	}
	if err != nil {
		return QEMU{}, err
	}
	if !devices[VsockDevice] {
		return QEMU{}, fmt.Errorf("%s has no %s", path, VsockDevice)
	}
	q.NSM = devices[NSMDevice]
	return q, nil
}

// Devices returns the names of the devices that this QEMU has, as `-device help` lists them in its sandbox.
func (q QEMU) Devices(ctx context.Context) (map[string]bool, error) {
	args := []string{"-M", "none", "-device", "help"}
	if q.Sandbox != "" {
		args = append([]string{"-sandbox", q.Sandbox}, args...)
	}
	out, err := output(ctx, q.Path, args...)
	if err != nil {
		return nil, err
	}
	devices := map[string]bool{}
	for _, match := range deviceName.FindAllStringSubmatch(out, -1) {
		devices[match[1]] = true
	}
	return devices, nil
}

var (
	// `name "pvpanic", bus ISA`: a line of `-device help`.
	deviceName = regexp.MustCompile(`(?m)^name "([^"]+)"`)
	// `QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)`: the first line of `--version`.
	versionLine = regexp.MustCompile(`^QEMU emulator version (\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?`)
)

func parseVersion(line string) (Version, error) {
	match := versionLine.FindStringSubmatch(line)
	if match == nil {
		line, _, _ = strings.Cut(line, "\n")
		return Version{}, fmt.Errorf("its --version says %.80q", line)
	}
	var v Version
	for i, digits := range match[1:] {
		v[i], _ = strconv.Atoi(digits) // at most six digits; a missing micro is 0
	}
	return v, nil
}

// output runs a QEMU that only prints and ends, and returns what it wrote to standard output.
func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second // a child of it may hold the pipe
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		err = fmt.Errorf("%w: %.200s", err, lines[len(lines)-1])
	}
	return "", fmt.Errorf("%s %s failed: %w", path, strings.Join(args, " "), err)
}
