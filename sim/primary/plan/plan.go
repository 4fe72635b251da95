// Package plan is what the host and the init of a primary VM say to each other: the plan, a file of the initramfs,
// and the report, which comes back over a virtio-serial port.
package plan

// Dir holds all of ours in the primary VM, so that the user's own root directory finds its places free.
const Dir = "/.nesim"

// Places below Dir.
const (
	Init    = Dir + "/init"      // the first process
	File    = Dir + "/plan.json" // a Plan
	Bin     = Dir + "/bin"       // busybox's commands, and vsock
	Modules = Dir + "/modules"   // as /lib/modules/RELEASE
)

// Names of the virtio-serial ports (virtio 1.2, section 5.3).
const (
	Stdin  = "nesim.stdin"
	Stdout = "nesim.stdout"
	Stderr = "nesim.stderr"
	Result = "nesim.report"
)

// Plan tells init what to do.
type Plan struct {
	Command  string   `json:"command"`        // for sh -c; empty: a login shell
	Terminal bool     `json:"terminal"`       // whether it runs on a terminal
	Term     string   `json:"term"`           // the terminal's TERM
	Rows     uint16   `json:"rows,omitempty"` // and size, 0 if that is not known
	Columns  uint16   `json:"columns,omitempty"`
	Modules  []string `json:"modules"`  // files below Modules, in the order of loading
	CPUPool  string   `json:"cpu_pool"` // for the NE driver's parameter ne_cpus
	HugeMiB  int      `json:"huge_mib"` // memory that the kernel was told to set aside in huge pages of 2 MiB
	HugeGiB  int      `json:"huge_gib"` // and of 1 GiB
	Hostname string   `json:"hostname"`
}

// Report is one line of JSON. The first reports that the command begins, or why it does not; the last how it ended.
type Report struct {
	Ready bool   `json:"ready,omitempty"` // the VM is ready and the command begins
	Exit  int    `json:"exit"`            // the command's exit code; 128 and the signal where one ended it
	Error string `json:"error,omitempty"` // why the command was not run
	// Stdout and Stderr are the bytes written to those ports. The VM may not be ended before they have arrived.
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}
