package scenarios

import (
	"time"

	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
)

// Place is where something stands in a file. Lines and columns count from 1.
type Place struct {
	File         string
	Line, Column int
}

// Scenario is one scenario of a file. The names of the keys are in the yaml tags; doc tags say what they mean, in the
// schema too.
type Scenario struct {
	Name        string              `yaml:"name" doc:"what the scenario shows, in a few words" required:"true"`
	Description string              `yaml:"description" doc:"more about it"`
	Tags        []string            `yaml:"tags" doc:"words to choose scenarios by"`
	Engines     []string            `yaml:"engines" doc:"what it can run on; both where left out" enum:"scripted,qemu"`
	Seed        uint64              `yaml:"seed" doc:"of all that is left to chance; the command line's goes before"`
	Timeout     Duration            `yaml:"timeout" doc:"for the whole; default 10m"`
	Vars        map[string]string   `yaml:"vars" doc:"values for ${name} in all strings"`
	Matrix      map[string][]string `yaml:"matrix" doc:"the scenario runs once for each combination of these values for ${name}"`
	Instance    Instance            `yaml:"instance" doc:"the instance it runs on"`
	Faults      []Fault             `yaml:"faults" doc:"what breaks, from the beginning on"`
	Leftovers   bool                `yaml:"leftovers" doc:"something is left over in the end, because of a fault"`
	Steps       []Step              `yaml:"steps" doc:"what happens, one after the other" required:"true"`

	Place `yaml:"-"`
}

// Instance shapes the stage.
type Instance struct {
	CPUs           int    `yaml:"cpus" doc:"of the parent; default 16"`
	ThreadsPerCore int    `yaml:"threads_per_core" doc:"default 2"`
	NUMANodes      int    `yaml:"numa_nodes" doc:"default 1"`
	Pool           string `yaml:"ne_cpus" doc:"CPU list that enclaves get; default all but the first core; none: no pool"`
	Slots          int    `yaml:"slots" doc:"enclaves at a time; default 4"`
	HugePages      uint64 `yaml:"huge_pages" doc:"of 2 MiB on node 0; default as many as are asked for"`
	NSM            bool   `yaml:"nsm" doc:"enclaves have a Nitro Secure Module"`
}

// Fault is a fault in a file: see package fault for what its fields mean.
type Fault struct {
	Name    string       `yaml:"name" doc:"for the trace"`
	At      fault.Point  `yaml:"at" doc:"where it strikes" required:"true" enum:"reply,event,start,image,heartbeat,vsock,nsm"`
	Do      fault.Action `yaml:"do" doc:"what it does" required:"true" enum:"delay,lose,errno,garbage,double,storm,refuse,corrupt,drop,reset,half,stall,limit,error,expire,skew"`
	Command string       `yaml:"command" doc:"reply: only of this command, such as SLOT_ADD_MEM"`
	Enclave string       `yaml:"enclave" doc:"only of this enclave"`
	Port    uint32       `yaml:"port" doc:"vsock: only of this port"`
	Nth     int          `yaml:"nth" doc:"at this occasion alone, counted from 1"`
	After   Duration     `yaml:"after" doc:"not before this time"`
	Chance  float64      `yaml:"chance" doc:"with this probability"`
	For     Duration     `yaml:"for" doc:"delay, skew: how long"`
	Errno   string       `yaml:"errno" doc:"errno: such as ENOSPC"`
	Code    string       `yaml:"code" doc:"error: the NSM's code, such as InternalError"`
	Times   int          `yaml:"times" doc:"storm: how many"`
	Bytes   int          `yaml:"bytes" doc:"reset, half, stall: after so many bytes; corrupt: at this offset of the image"`
	Rate    int          `yaml:"rate" doc:"limit: bytes a second"`

	Place `yaml:"-"`
}

// Step is one step. Exactly one of its actions is set.
type Step struct {
	Name        string   `yaml:"name" doc:"in place of the step's own words, in reports"`
	Timeout     Duration `yaml:"timeout" doc:"for this step; default 4m"`
	ExpectError string   `yaml:"expect_error" doc:"the error that the step must fail with: an errno's name or one of NE_ERR_*"`

	Include   string            `yaml:"include" doc:"in place of this step those of a file: a list of steps"`
	Build     *Build            `yaml:"build" doc:"build an image"`
	Create    *Create           `yaml:"create" doc:"NE_CREATE_VM"`
	AddMemory *AddMemory        `yaml:"add_memory" doc:"map huge pages, load an image into them, NE_SET_USER_MEMORY_REGION"`
	AddCPU    *AddCPU           `yaml:"add_cpu" doc:"NE_ADD_VCPU"`
	ImageInfo *ImageInfo        `yaml:"image_info" doc:"NE_GET_IMAGE_LOAD_INFO"`
	Start     *Start            `yaml:"start" doc:"NE_START_ENCLAVE"`
	Heartbeat *Heartbeat        `yaml:"heartbeat" doc:"wait for the heartbeat of an enclave that was started"`
	Run       *RunEnclave       `yaml:"run" doc:"all of these, as run-enclave does"`
	Ioctl     *Ioctl            `yaml:"ioctl" doc:"any ioctl, good or bad"`
	PCI       *PCI              `yaml:"pci" doc:"a raw command of the PCI device, past the driver"`
	Dial      *Dial             `yaml:"dial" doc:"connect from the parent to a port, once somebody listens"`
	Listen    *Listen           `yaml:"listen" doc:"listen on a port of the parent"`
	Accept    *Accept           `yaml:"accept" doc:"take a connection"`
	Send      *Send             `yaml:"send" doc:"send on a connection"`
	Expect    *Expect           `yaml:"expect" doc:"receive from a connection"`
	Close     *Close            `yaml:"close" doc:"close a connection, a listener, or an enclave's descriptor"`
	Call      *Call             `yaml:"call" doc:"send hello a command on port 5006"`
	Attest    *Attest           `yaml:"attest" doc:"have hello attested and verify the document"`
	Console   *ConsoleExpect    `yaml:"console" doc:"wait for a text on the console"`
	Poll      *Poll             `yaml:"poll" doc:"poll the enclave's descriptor"`
	Slot      *Slot             `yaml:"slot" doc:"compare what the device tells of the enclave's slot"`
	Ended     *Ended            `yaml:"ended" doc:"wait for the end of the enclave's machine"`
	Terminate *Terminate        `yaml:"terminate" doc:"close the enclave's descriptor, and wait until nothing is left of it"`
	Signal    *Signal           `yaml:"signal" doc:"send a signal to the enclave's VMM"`
	Exit      *ExitProcess      `yaml:"exit_process" doc:"end a process of the parent with all that it has"`
	CPUPool   *CPUPool          `yaml:"cpu_pool" doc:"set the pool of CPUs for enclaves, as ne_cpus does"`
	Restart   *struct{}         `yaml:"restart" doc:"end and start again the daemon that plays the hypervisor"`
	Fault     *Fault            `yaml:"fault" doc:"break something from now on"`
	Sleep     *Sleep            `yaml:"sleep" doc:"wait, where there is nothing to wait for"`
	Seen      *Seen             `yaml:"seen" doc:"look for something in the trace so far"`
	Exec      *Exec             `yaml:"exec" doc:"run a program on this machine"`
	Parallel  map[string][]Step `yaml:"parallel" doc:"branches that run at the same time, by their names"`

	Place `yaml:"-"`
}

// The steps' parameters.
type (
	Build struct {
		As      string `yaml:"as" doc:"a name for the image" required:"true"`
		Rootfs  string `yaml:"rootfs" doc:"a folder, as build-enclave's --rootfs; default that of the hello enclave"`
		Cmdline string `yaml:"cmdline" doc:"the kernel's command line; default nesim's"`
		Sign    string `yaml:"sign" doc:"with a certificate that is valid, has expired, or is another key's; default not at all" enum:"valid,expired,forged"`
	}
	Create struct {
		Enclave string `yaml:"enclave" doc:"a name for it" required:"true"`
		Process string `yaml:"process" doc:"the parent's process; made when it is first named"`
	}
	AddMemory struct {
		Enclave    string `yaml:"enclave" required:"true"`
		Size       Size   `yaml:"size" doc:"such as 256M; default that of the memory again"`
		PageSize   Size   `yaml:"page_size" doc:"4K, 64K, 2M (default) or 1G"`
		Image      string `yaml:"image" doc:"hello, one that was built, a file, or none (default)"`
		Corrupt    *Size  `yaml:"corrupt" doc:"a byte of the image, at this offset, is changed once it is loaded"`
		Contiguous uint64 `yaml:"contiguous_pages" doc:"physically contiguous pages before a hole comes; default all"`
		Node       int    `yaml:"node" doc:"NUMA node of the pages"`
		Process    string `yaml:"process" doc:"whose memory it is; default the enclave's"`
		As         string `yaml:"as" doc:"a name for the memory"`
		Again      string `yaml:"again" doc:"the memory of this name, in place of more"`
		Shift      Size   `yaml:"shift" doc:"the region begins so many bytes into the memory"`
		Flags      uint64 `yaml:"flags" doc:"default NE_DEFAULT_MEMORY_REGION"`
	}
	AddCPU struct {
		Enclave string `yaml:"enclave" required:"true"`
		CPU     uint32 `yaml:"cpu" doc:"0 (default): the driver chooses"`
		Count   int    `yaml:"count" doc:"how many times; default 1"`
	}
	ImageInfo struct {
		Enclave string  `yaml:"enclave" required:"true"`
		Flags   *uint64 `yaml:"flags" doc:"default NE_EIF_IMAGE"`
		Offset  *uint64 `yaml:"offset" doc:"what it must be"`
	}
	Start struct {
		Enclave string     `yaml:"enclave" required:"true"`
		CID     uint64     `yaml:"cid" doc:"0 (default): the hypervisor chooses"`
		Debug   bool       `yaml:"debug"`
		Flags   *uint64    `yaml:"flags" doc:"in place of debug"`
		Does    *Behaviour `yaml:"does" doc:"what a scripted enclave does; default what hello does"`
		Unheard bool       `yaml:"unheard" doc:"nobody listens for the heartbeat"`
	}
	Heartbeat struct {
		Enclave string   `yaml:"enclave" required:"true"`
		Within  Duration `yaml:"within" doc:"default: nitro-cli's time"`
		Expect  string   `yaml:"expect" doc:"default answered" enum:"answered,time-out,ended,bad"`
	}
	RunEnclave struct {
		Enclave string     `yaml:"enclave" required:"true"`
		Process string     `yaml:"process"`
		CPUs    int        `yaml:"cpus" doc:"default 2"`
		Memory  Size       `yaml:"memory" doc:"default 128M"`
		Image   string     `yaml:"image" doc:"hello (default), one that was built, or a file"`
		CID     uint64     `yaml:"cid"`
		Debug   bool       `yaml:"debug"`
		Does    *Behaviour `yaml:"does"`
		Expect  string     `yaml:"heartbeat" doc:"default answered" enum:"answered,time-out,ended,bad"`
	}
	Ioctl struct {
		Enclave string            `yaml:"enclave" doc:"left out: on the device file"`
		Process string            `yaml:"process" doc:"of the device file"`
		Number  string            `yaml:"number" doc:"such as NE_ADD_VCPU, or a number" required:"true"`
		Fields  map[string]uint64 `yaml:"fields" doc:"of its structure, by the header's names"`
		BadAddr bool              `yaml:"bad_address" doc:"the argument points nowhere"`
	}
	PCI struct {
		Command string            `yaml:"command" doc:"such as SLOT_ALLOC" required:"true"`
		Slot    string            `yaml:"slot" doc:"the slot that an earlier step saved under this name, for slot_uid"`
		Fields  map[string]uint64 `yaml:"fields" doc:"of the request, by the header's names"`
		RC      string            `yaml:"rc" doc:"the reply's: 0 (default) or an errno's name"`
		Reply   map[string]uint64 `yaml:"reply" doc:"fields of the reply, by the header's names"`
		Save    string            `yaml:"save" doc:"a name for the reply's slot_uid"`
		State   string            `yaml:"state" doc:"the reply's" enum:"init,running,stopped"`
	}
	Dial struct {
		As      string `yaml:"as" doc:"a name for the connection" required:"true"`
		Enclave string `yaml:"enclave"`
		CID     uint32 `yaml:"cid" doc:"in place of an enclave"`
		Port    uint32 `yaml:"port" required:"true"`
		Once    bool   `yaml:"once" doc:"do not wait until somebody listens"`
	}
	Listen struct {
		As   string `yaml:"as" required:"true"`
		Port uint32 `yaml:"port" required:"true"`
	}
	Accept struct {
		As   string `yaml:"as" required:"true"`
		On   string `yaml:"on" doc:"the listener" required:"true"`
		From string `yaml:"from" doc:"the enclave that connects"`
	}
	Send struct {
		On   string `yaml:"on" required:"true"`
		Text string `yaml:"text"`
		Hex  string `yaml:"hex" doc:"bytes in hexadecimal, in place of a text"`
		Size Size   `yaml:"size" doc:"so many bytes, in place of a text"`
	}
	Expect struct {
		On     string `yaml:"on" required:"true"`
		Text   string `yaml:"text" doc:"these bytes come"`
		Regexp string `yaml:"regexp" doc:"bytes come that match"`
		Size   Size   `yaml:"size" doc:"so many bytes come, as send sends them"`
		EOF    bool   `yaml:"eof" doc:"the end comes, and nothing before"`
		Reset  bool   `yaml:"reset" doc:"the connection is reset"`
		Silent bool   `yaml:"silent" doc:"nothing comes within a minute"`
	}
	Close struct {
		On        string `yaml:"on" doc:"a connection or a listener"`
		WriteOnly bool   `yaml:"write_only" doc:"half close of a connection"`
		Enclave   string `yaml:"enclave" doc:"an enclave's descriptor"`
	}
	Call struct {
		Enclave string `yaml:"enclave" required:"true"`
		Command string `yaml:"command" doc:"exit N, crash, panic, poweroff, reboot, triple-fault, hang, env, attest NONCE" required:"true"`
		Answer  string `yaml:"answer" doc:"a regular expression"`
	}
	Attest struct {
		Enclave string `yaml:"enclave" required:"true"`
		Nonce   string `yaml:"nonce" doc:"in hex; default 00"`
		Expect  string `yaml:"expect" doc:"default verified" enum:"verified,refused,error"`
	}
	ConsoleExpect struct {
		Enclave string `yaml:"enclave" required:"true"`
		Regexp  string `yaml:"regexp" required:"true"`
	}
	Poll struct {
		Enclave string   `yaml:"enclave" required:"true"`
		Expect  string   `yaml:"expect" doc:"hangup (default): it comes; none: not now, nor within the time" enum:"hangup,none"`
		Within  Duration `yaml:"within" doc:"default: hangup the step's time, none at once"`
	}
	Slot struct {
		Enclave string  `yaml:"enclave" required:"true"`
		State   string  `yaml:"state" enum:"init,running,stopped,freed"`
		Memory  *Size   `yaml:"memory"`
		Regions *uint64 `yaml:"regions"`
		CPUs    *uint64 `yaml:"cpus"`
		CID     *uint64 `yaml:"cid"`
	}
	Ended struct {
		Enclave string `yaml:"enclave" required:"true"`
		Reason  string `yaml:"reason" enum:"asked,guest exit,guest panic,VM killed,VM failed"`
		Code    *int   `yaml:"code" doc:"the guest's exit code"`
	}
	Terminate struct {
		Enclave string `yaml:"enclave" required:"true"`
	}
	Signal struct {
		Enclave string `yaml:"enclave" required:"true"`
		Signal  string `yaml:"signal" doc:"oom: as the host's kernel kills when it is out of memory" required:"true" enum:"kill,stop,cont,oom"`
	}
	ExitProcess struct {
		Process string `yaml:"process" required:"true"`
	}
	CPUPool struct {
		CPUs string `yaml:"cpus" doc:"a CPU list such as 2-5,7" required:"true"`
	}
	Sleep struct {
		For Duration `yaml:"for" required:"true"`
		Why string   `yaml:"why" doc:"why nothing can be waited for" required:"true"`
	}
	Seen struct {
		Regexp string   `yaml:"regexp" doc:"on an entry's lane, kind and text: \"device command: SLOT_INFO\"" required:"true"`
		Count  *int     `yaml:"count" doc:"how often; default at least once"`
		Then   []string `yaml:"then" doc:"and after the first, in this order"`
		Within Duration `yaml:"within" doc:"the time from the first to the last of these, at most"`
		After  Duration `yaml:"after" doc:"the time from the first to the last of these, at least"`
	}
	Exec struct {
		Command string   `yaml:"command" doc:"for sh -c; $NESIM_CID_NAME is an enclave's CID, and $NESIM_VSOCK_NAME a UNIX socket that takes \"CONNECT 5005\", as Firecracker's does" required:"true"`
		Code    int      `yaml:"code" doc:"what it must exit with"`
		Output  string   `yaml:"output" doc:"a regular expression"`
		Listen  []uint32 `yaml:"listen" doc:"ports of the parent that it serves: connections to port 7000 come to the UNIX socket $NESIM_VSOCK_PARENT_7000, on which it listens"`
	}
)

// Behaviour is a scripted enclave's: see package scripted.
type Behaviour struct {
	Boot     Duration        `yaml:"boot" doc:"from the start to the heartbeat"`
	Mute     bool            `yaml:"mute" doc:"no heartbeat"`
	Leaves   bool            `yaml:"leaves" doc:"sends the heartbeat, and ends before it can be answered"`
	Workload string          `yaml:"workload" doc:"default hello" enum:"hello,none"`
	Console  []ConsoleLine   `yaml:"console"`
	Dials    []BehaviourDial `yaml:"dials"`
	Ends     *Ending         `yaml:"ends" doc:"by itself"`
	Hangs    bool            `yaml:"ignores_end" doc:"ends by force alone"`
}

// What a Behaviour is made of.
type (
	ConsoleLine struct {
		At    Duration `yaml:"at"`
		Text  string   `yaml:"text" required:"true"`
		Times int      `yaml:"times"`
	}
	BehaviourDial struct {
		At   Duration `yaml:"at"`
		Port uint32   `yaml:"port" required:"true"`
		Text string   `yaml:"text"`
	}
	Ending struct {
		At   Duration     `yaml:"at"`
		How  scripted.How `yaml:"how" required:"true" enum:"exit,crash,poweroff,reboot,panic,triple-fault,killed,oom,failed"`
		Code int          `yaml:"code"`
	}
)

// Duration is a length of time as time.ParseDuration reads it: 30s, 5m.
type Duration time.Duration

// Size is a number of bytes: 4096, 64K, 2M, 1G.
type Size uint64
