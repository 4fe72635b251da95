package scripted

import "time"

// Behaviour is what a scripted enclave does. The zero value boots at once and never ends by itself. The yaml tags are its
// keys in scenario files.
type Behaviour struct {
	Boot      time.Duration `yaml:"boot" doc:"time from the start to the heartbeat"`
	Mute      bool          `yaml:"mute" doc:"send no heartbeat"`
	Leaves    bool          `yaml:"leaves" doc:"send the heartbeat, and end before it can be answered"`
	Workload  string        `yaml:"workload" doc:"hello (default): echo on port 5005, commands on port 5006" enum:"hello,none"`
	Console   []Line        `yaml:"console" doc:"console lines, beside the workload's own"`
	Dials     []DialOut     `yaml:"dials" doc:"connections to the parent"`
	Ends      *Ending       `yaml:"ends" doc:"how it ends by itself"`
	IgnoreEnd bool          `yaml:"ignores_end" doc:"hang at the end: the VM must be killed, which takes three seconds"`
}

// Line is a line on the console.
type Line struct {
	At    time.Duration `yaml:"at" doc:"time since the start"`
	Text  string        `yaml:"text" required:"true"`
	Times int           `yaml:"times" max:"10000" doc:"how often (default 1)"`
}

// DialOut is a connection to a port of the parent, on which the enclave sends a text; it prints the answer on its console.
type DialOut struct {
	At   time.Duration `yaml:"at" doc:"time since the start"`
	Port uint32        `yaml:"port" required:"true"`
	Text string        `yaml:"text"`
}

// Ending is how an enclave ends by itself.
type Ending struct {
	At   time.Duration `yaml:"at" doc:"time since the start"`
	How  How           `yaml:"how" required:"true" enum:"exit,crash,poweroff,reboot,panic,triple-fault,killed,oom,failed"`
	Code int           `yaml:"code" doc:"exit: the workload's exit code"`
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
