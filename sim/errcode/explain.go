package errcode

// Explanation explains a code to people.
type Explanation struct {
	Title string // a few words
	Text  string // when it happens
	Do    string // what to do about it
}

const unused = "nesim has no such resource, and never returns this code."

// Explain returns the explanation of a code that Parse accepts.
func (c Code) Explain() Explanation {
	if int(c) >= len(explanations) {
		return explanations[0]
	}
	return explanations[c]
}

var explanations = [...]Explanation{
	{"unspecified error", "nitro-cli reserves this code for errors without a code of their own. No command returns it.", ""},
	MissingArgument: {
		"an argument is missing",
		"A required flag is missing, such as --memory for run-enclave, or the --config file has neither cpu_count nor cpu_ids.",
		"Give the flag that the message names; the command's --help lists them.",
	},
	ConflictingArgument: {
		"arguments exclude each other",
		"Two flags, or two keys of the --config file, cannot be used together, such as --cpu-count and --cpu-ids.",
		"Remove one of them.",
	},
	InvalidArgument: {
		"an argument has a bad value",
		"The value of a flag is malformed or out of range: not a number, an unknown unit of memory, or a reserved CID (1 to 3 and 4294967295; a CID has 32 bits).",
		"Correct the value that the message quotes.",
	},
	SocketPairCreationFailure: {"no pair of sockets", "nitro-cli could not make the sockets between itself and an enclave's process. " + unused, ""},
	ProcessSpawnFailure: {
		"a process could not be started",
		"The daemon did not start: a program is missing, or a limit of the host was reached.",
		"Read nesim.log in the daemon's folder, and run nesim doctor.",
	},
	DaemonizeProcessFailure: {"a process could not go to the background", "nitro-cli could not detach an enclave's process. " + unused, ""},
	ReadFromDiskFailure: {
		"a folder could not be read",
		"The folder with the sockets of running enclaves cannot be read. For nesim, this is the daemon's folder.",
		"Check the owner and the mode of the folder, or set NESIM_DIR to another one.",
	},
	UnusableConnection:   {"a connection is gone", "A request was to be answered on a connection that had been closed. " + unused, ""},
	SocketClose:          {"a socket could not be closed", "nitro-cli could not shut a connection down. " + unused, ""},
	SocketConnectTimeout: {"a socket's timeout could not be set", "nitro-cli could not limit how long connecting to a console may take. " + unused, ""},
	Socket: {
		"cannot connect to the enclave",
		"The connection to the process that runs the enclave failed. Usually no enclave with this --enclave-id is running, or no daemon is.",
		"nesim describe-enclaves lists the running enclaves.",
	},
	Epoll:              {"waiting for events failed", "nitro-cli could not wait on several descriptors at once. " + unused, ""},
	Inotify:            {"watching a socket's file failed", "nitro-cli could not notice the removal of its socket. " + unused, ""},
	InvalidCommand:     {"an unknown request", "The daemon did not understand the request: the command and the daemon may have different versions.", "Run nesim shutdown to stop the daemon; the next command starts one of its own version."},
	LockAcquireFailure: {"a lock was lost", "A thread of nitro-cli failed while it held what others needed. " + unused, ""},
	ThreadJoinFailure:  {"a thread failed", "A thread of nitro-cli ended by an error of its own. " + unused, ""},
	Serde: {
		"data could not be read or written as JSON",
		"The --config file is not valid JSON, lacks eif_path or memory_mib, or has a value of the wrong type.",
		"Correct the key that the message names.",
	},
	FilePermissions: {"a file's mode could not be changed", "nitro-cli could not open its log to other users. " + unused, ""},
	FileOperationFailure: {
		"a file could not be used",
		"A file could not be opened, read or written: the image, a key, a certificate, the --config file, or the output.",
		"Check the path in the message, its owner and its mode.",
	},
	InvalidCPUConfiguration: {
		"a CPU is named twice",
		"--cpu-ids names the same CPU more than once.",
		"Name each CPU once.",
	},
	NoSuchCPUAvailableInPool: {
		"a CPU is not in the pool",
		"A CPU of --cpu-ids is not in the instance's CPU pool for enclaves.",
		"Choose CPUs from the pool in the message, or start the daemon with another pool: nesim serve --ne-cpus LIST.",
	},
	InsufficientCPUs: {
		"the pool has too few CPUs",
		"--cpu-count is larger than the instance's CPU pool for enclaves, including CPUs in use.",
		"Request fewer CPUs, or start the daemon with more: nesim serve --cpus N --ne-cpus LIST.",
	},
	MalformedCPUID: {"a CPU number could not be read", "The CPU pool list has an entry that is not a number.", "Correct the list given to nesim serve --ne-cpus."},
	CPU:            {"a CPU range could not be read", "The CPU pool list has a malformed range.", "Correct the list given to nesim serve --ne-cpus."},
	NoSuchHugepageFlag: {
		"an unknown size of huge pages", "nitro-cli does not support huge pages of this size. " + unused, "",
	},
	InsufficientMemoryRequested: {
		"too little memory requested",
		"--memory is zero, or less than four times the size of the image, which is nitro-cli's minimum.",
		"Set --memory to at least the size in the message.",
	},
	InsufficientMemoryAvailable: {
		"not enough memory available",
		"The host has less memory than requested.",
		"Request less, or terminate another enclave: nesim terminate-enclave.",
	},
	InvalidEnclaveFD: {"no descriptor for the enclave", "The driver's NE_CREATE_VM returned no descriptor.", "The daemon's log has the reason."},
	IoctlFailure: {
		"the NE driver refused",
		"A request to the Nitro Enclaves driver failed: for a slot, memory, a CPU, or the start. For example, all slots are in use, the CPUs are not whole cores, or another enclave has the CID.",
		"The message gives the reason of the driver or of the hypervisor.",
	},
	IoctlImageLoadInfoFailure:   {"no image load information", "NE_GET_IMAGE_LOAD_INFO failed; nitro-cli now returns E29 instead.", ""},
	IoctlSetMemoryRegionFailure: {"the driver refused memory", "NE_SET_USER_MEMORY_REGION failed; nitro-cli now returns E29 instead.", ""},
	IoctlAddVCPUFailure:         {"the driver refused a CPU", "NE_ADD_VCPU failed; nitro-cli now returns E29 instead.", ""},
	IoctlEnclaveStartFailure:    {"the driver did not start the enclave", "NE_START_ENCLAVE failed; nitro-cli now returns E29 instead.", ""},
	MemoryOverflow: {
		"the image does not fit",
		"The image does not fit into the memory behind its load offset.",
		"Give more --memory.",
	},
	EIFParsing: {
		"the image is not a valid EIF",
		"The file is not an Enclave Image File, is truncated or damaged, or is for another processor architecture.",
		"Check the file with nesim describe-eif, and copy or build it again.",
	},
	EnclaveBootFailure: {
		"the enclave did not boot",
		"The enclave started, but its init did not send its heartbeat, a byte to CID 3 port 9000, before the timeout or before the enclave ended.",
		"The message has the cause, if the kernel, init or QEMU reported one, else the console's last lines. Run the enclave with --debug-mode and read the whole console with nesim console, also after the enclave has ended.",
	},
	EnclaveEventWait:                 {"waiting for the enclave failed", "The enclave's descriptor could not be polled. " + unused, ""},
	EnclaveProcessCommandNotExecuted: {"a request was not carried out", "A process of an enclave refused to describe or terminate it.", "The daemon's log has the reason."},
	EnclaveProcessConnectionFailure: {
		"an enclave's process is gone",
		"The daemon ended while it was starting the enclave. nitro-cli exits with this code whenever the process of the enclave fails, after printing the code of the cause; nesim exits with the code of the cause.",
		"The daemon's log has the reason. The next command starts another daemon.",
	},
	SocketPathNotFound:             {"no socket for the enclave", "nitro-cli could not derive the name of the enclave's socket from its ID. " + unused, ""},
	EnclaveProcessSendReplyFailure: {"a reply could not be sent", "The command ended before it received the reply. " + unused, ""},
	EnclaveMmap:                    {"memory could not be mapped", "The enclave's memory could not be allocated.", "nesim doctor shows the host's free memory."},
	EnclaveMunmap:                  {"memory could not be unmapped", "The enclave's memory could not be released. " + unused, ""},
	EnclaveConsoleConnectionFailure: {
		"the console cannot be reached",
		"The enclave does not run in debug mode, and has no console, or the console does not respond.",
		"Run the enclave with --debug-mode or --attach-console.",
	},
	EnclaveConsoleRead: {
		"reading the console failed", "Reading from the enclave's console failed.", "nesim describe-enclaves shows whether the enclave is still running.",
	},
	EnclaveConsoleWriteOutput: {"the console's text could not be written", "The console was read, but standard output could not be written.", "Check the file or the program that standard output is connected to."},
	IntegerParsing:            {"a CID could not be read", "The CID of the enclave is not a 32-bit number. " + unused, ""},
	EIFBuilding: {
		"the image could not be built",
		"A part of the image is missing or unusable: the kernel, the init, the file system, or the metadata.",
		"The message names the part.",
	},
	DockerImageBuild:    {"the container image could not be built", "--docker-dir was given and its Dockerfile did not build.", "Build it by hand to see why."},
	DockerImagePull:     {"the container image could not be fetched", "The image is neither in the local container engine nor in the registry, or neither responded.", "Check the name of the image, and that the engine is running or the registry is reachable."},
	ArtifactsPathNotSet: {"no folder for intermediate files", "nitro-cli needs HOME or NITRO_CLI_ARTIFACTS for a build. nesim needs neither.", ""},
	BlobsPathNotSet:     {"no folder of kernel and init", "NITRO_CLI_BLOBS does not name a usable folder.", "Correct it, or unset it to use nesim's own init and kernel."},
	ClockSkew:           {"the clock went backwards", "The time since the last read of the console was negative. " + unused, ""},
	SignalMasking:       {"signals could not be masked", "nitro-cli could not mask signals before it started an enclave's process. " + unused, ""},
	SignalUnmasking:     {"signals could not be unmasked", "nitro-cli could not unmask signals after it started an enclave's process. " + unused, ""},
	Logger:              {"the log could not be opened", "The log cannot be written.", "For nesim this is nesim.log in the daemon's folder: check its owner, or set NESIM_DIR."},
	Hasher: {
		"a measurement failed",
		"The input could not be measured. Usually the file of pcr --signing-certificate has no certificate in PEM.",
		"Convert the certificate: openssl x509 -inform DER -in FILE.",
	},
	EnclaveNaming: {
		"no enclave of that name",
		"No running enclave has the name given by --enclave-name.",
		"nesim describe-enclaves lists the names.",
	},
	EIFSignatureChecker: {
		"the image's signature is not valid",
		"The signature was not made with the key of the certificate, belongs to another image, or the certificate has expired or is not yet valid.",
		"Sign the image again: nesim sign-eif replaces the signature.",
	},
	EIFSigning: {
		"the image could not be signed",
		"The key or the certificate is missing, they do not belong together, the key is not on P-256, P-384 or P-521, or the command that signs failed.",
		"Check both; openssl x509 -noout -pubkey and openssl pkey -pubout must print the same.",
	},
}
