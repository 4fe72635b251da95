package scripted

import "time"

// Behaviour is what a scripted enclave does. The zero value boots at once and never ends by itself.
type Behaviour struct {
	Boot      time.Duration // from the start to the heartbeat
	Mute      bool          // no heartbeat
	Leaves    bool          // sends the heartbeat, and ends before it can be answered
	Workload  string        // "hello" (default): echo on port 5005, commands on 5006, as cmd/hello; "none"
	Console   []Line        // beside the workload's own
	Dials     []Dial        // to the parent
	Ends      *Ending       // by itself
	IgnoreEnd bool          // a hung machine: it ends by force alone, which takes three seconds
}

// Line is a line on the console.
type Line struct {
	At    time.Duration // since the start
	Text  string
	Times int // 0 is once
}

// Dial is a connection to a port of the parent, on which the enclave sends a text; it tells the answer on its console.
type Dial struct {
	At   time.Duration // since the start
	Port uint32
	Text string
}

// Ending is how an enclave ends by itself.
type Ending struct {
	At  time.Duration // since the start
	How How
	// Code is the workload's exit code, for Exit.
	Code int
}

// How is a way to end.
type How string

// The ways to end.
const (
	Exit        How = "exit"         // the workload exits; init powers off
	Crash       How = "crash"        // the workload dies by SIGSEGV; init powers off
	PowerOff    How = "poweroff"     // guest exit
	Reboot      How = "reboot"       // guest exit
	Panic       How = "panic"        // the kernel panics
	TripleFault How = "triple-fault" // guest exit: a reset, for the VMM
	Killed      How = "killed"       // the VMM's process is killed
	OutOfMemory How = "oom"          // the VMM's process is killed by the host's kernel
	Failed      How = "failed"       // the VMM cannot go on
)
