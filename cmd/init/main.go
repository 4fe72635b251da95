// Program init is the first process of an enclave that nesim packs. It does what the init of the AWS Nitro Enclaves
// SDK bootstrap does, step by step and in the same order: it loads the kernel's modules, tells the parent by a
// heartbeat that the enclave is up, turns /rootfs into the root directory, starts the workload named by /cmd with the
// environment of /env, reaps orphans, and when the workload ends says how and powers the enclave off.
//
// It lives in the bootstrap ramdisk, measured in PCR1, and reads only these files:
//
//	/modules/order  file names in /modules, one a line, in the order in which to load them (may be missing)
//	/modules        the modules that are loaded when the kernel asks for them, with modules.dep, modules.alias and
//	                modules.devname (may be missing)
//	/init.next      another init, which it becomes once the modules are in place (may be missing)
//	/nsm.ko         the NSM's driver, where AWS's tools put it (may be missing)
//	/cmd            the workload's arguments, one a line
//	/env            its environment, one KEY=VALUE a line
//	/workdir        the directory it starts in (may be missing: /)
//	/user           the numbers of the user it runs as, of its group and of its other groups, one a line (may be
//	                missing: root)
//	/rootfs         its root directory
//
// The kernel starts it a second time, as modprobe(8), for a module that is loaded on demand.
//
// Only the main goroutine touches the system; it never has more than one child of its own.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/workload"
)

// modules is the folder of the kernel's modules.
const modules = "/modules"

func main() {
	// Nothing here makes garbage worth collecting, nor runs in parallel. Setting the number of processors also keeps
	// the runtime from watching cgroups for it.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(1)

	if os.Getpid() != 1 {
		if err := modprobe(os.Args[1:], openModules); err != nil {
			fmt.Fprintf(os.Stderr, "modprobe: %v\n", err)
			os.Exit(1)
		}
		return
	}

	// The first process must outlive every signal. Caught signals, unlike ignored ones, are reset in children.
	signal.Notify(make(chan os.Signal, 1))

	defer func() {
		if r := recover(); r != nil {
			say("error: %v", r)
		}
		powerOff()
	}()
	ending, err := run()
	if err != nil {
		unix.Write(1, []byte(workload.Report{Error: err.Error()}.Line()+"\n"))
		return
	}
	unix.Write(1, []byte(ending.Line()+"\n"))
}

// run brings the enclave up, runs the workload and reports how it ended.
func run() (ending workload.Report, err error) {
	if _, err := os.Stat(guestwire.NextInit); err == nil {
		return ending, becomeNext()
	}
	if err := openConsole(); err != nil {
		return ending, err
	}
	if err := loadModules(modules, "/nsm.ko"); err != nil {
		return ending, err
	}
	onDemand, err := offerModules(modules, "/init", false)
	if err != nil {
		return ending, err
	}
	if err := raiseLoopback(); err != nil {
		return ending, err
	}
	cid, err := heartbeat()
	if err != nil {
		return ending, err
	}
	w, err := readWorkload("")
	if err != nil {
		return ending, err
	}
	if err := enterRoot("/rootfs"); err != nil {
		return ending, err
	}
	if onDemand {
		if err := setHelper(); err != nil {
			return ending, err
		}
	}
	say("heartbeat answered by CID %d; starting %s", cid, w.argv[0])
	return w.run()
}

// say prints one line on the console, in one write so that it does not mix with the kernel's or the workload's.
func say(format string, args ...any) {
	unix.Write(1, fmt.Appendf(nil, "init: "+format+"\n", args...))
}

// drainTime bounds how long the last lines may take on their way out of a stuck console.
const drainTime = 2 * time.Second

// powerOff ends the machine, once the console has sent what was written to it: a reset would lose the lines that still
// wait in the serial driver's buffer. It restarts rather than powers off because that is what AWS's init does and
// because the hypervisor ends the enclave at a restart.
func powerOff() {
	drained := make(chan struct{})
	go func() {
		unix.IoctlSetInt(1, unix.TCSBRK, 1) // tcdrain(3)
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainTime):
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	say("error: power off: %v", err)
}
