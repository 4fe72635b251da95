package errcode

// Explanation tells people what a code means.
type Explanation struct {
	Title string // a few words
	Text  string // when it happens
	Do    string // what to do about it
}

const unused = "nesim's commands and its daemon share no such resource, so nesim never returns it."

// Explain returns the explanation of a code that Parse accepts.
func (c Code) Explain() Explanation {
	if int(c) >= len(explanations) {
		return explanations[0]
	}
	return explanations[c]
}

var explanations = [...]Explanation{
	{"unspecified error", "nitro-cli keeps this code for errors that have no other; no command returns it.", ""},
	MissingArgument: {
		"an argument is missing",
		"The command needs a flag that was not given, such as --memory for run-enclave, or the --config file names neither cpu_count nor cpu_ids.",
		"Give the flag that the message names; the command's --help lists them.",
	},
	ConflictingArgument: {
		"arguments exclude each other",
		"Two flags, or two keys of the --config file, were given of which only one may be, such as --cpu-count and --cpu-ids.",
		"Leave one of them out.",
	},
	InvalidArgument: {
		"an argument has a bad value",
		"A value is not of the kind its flag takes: a number with other characters in it, an unknown unit of memory, or a CID that no enclave may have (0 to 3 and 4294967295 have owners, and a CID has 32 bits).",
		"Correct the value that the message quotes.",
	},
	SocketPairCreationFailure: {"no pair of sockets", "nitro-cli could not make the sockets between itself and an enclave's process. " + unused, ""},
	ProcessSpawnFailure: {
		"a process could not be started",
		"The daemon that plays the instance did not start: a program is missing, or a limit of the host was reached.",
		"Read nesim.log in the daemon's folder, and run nesim doctor.",
	},
	DaemonizeProcessFailure: {"a process could not go to the background", "nitro-cli could not detach an enclave's process. " + unused, ""},
	ReadFromDiskFailure: {
		"a folder could not be read",
		"The folder in which running enclaves are found cannot be listed; for nesim, the daemon's folder is not usable.",
		"Look at the folder's owner and mode, or set NESIM_DIR to another one.",
	},
	UnusableConnection:   {"a connection is gone", "A request was to be answered on a connection that had been closed. " + unused, ""},
	SocketClose:          {"a socket could not be closed", "nitro-cli could not shut a connection down. " + unused, ""},
	SocketConnectTimeout: {"a socket's timeout could not be set", "nitro-cli could not limit how long connecting to a console may take. " + unused, ""},
	Socket: {
		"nobody answers for the enclave",
		"A connection between the command and what runs the enclave failed: mostly because no enclave with the given --enclave-id runs any more, or no daemon does.",
		"nesim describe-enclaves lists what runs.",
	},
	Epoll:              {"waiting for events failed", "nitro-cli could not wait on several descriptors at once. " + unused, ""},
	Inotify:            {"watching a socket's file failed", "nitro-cli could not notice the removal of its socket. " + unused, ""},
	InvalidCommand:     {"an unknown request", "What runs the enclave did not understand the request: the command and the daemon may be of different versions.", "nesim shutdown ends the daemon; the next command starts one of its own version."},
	LockAcquireFailure: {"a lock was lost", "A thread of nitro-cli failed while it held what others needed. " + unused, ""},
	ThreadJoinFailure:  {"a thread failed", "A thread of nitro-cli ended by an error of its own. " + unused, ""},
	Serde: {
		"data could not be read or written as JSON",
		"The --config file is not the JSON object that run-enclave wants: eif_path and memory_mib must be there, and each key have a value of its kind.",
		"Correct the file where the message says.",
	},
	FilePermissions: {"a file's mode could not be changed", "nitro-cli could not open its log to other users. " + unused, ""},
	FileOperationFailure: {
		"a file could not be used",
		"A file could not be opened, read or written: the image, a key, a certificate, the --config file, or the output.",
		"Look at the path in the message, its spelling, its owner and its mode.",
	},
	InvalidCPUConfiguration: {
		"a CPU is named twice",
		"The list of --cpu-ids has the same CPU more than once.",
		"Name each CPU once.",
	},
	NoSuchCPUAvailableInPool: {
		"a CPU is not in the pool",
		"A CPU of --cpu-ids is not one of those that the instance sets aside for enclaves.",
		"Choose from the pool that the message shows, or start the daemon with another: nesim serve --ne-cpus LIST.",
	},
	InsufficientCPUs: {
		"the pool has too few CPUs",
		"--cpu-count asks for more CPUs than the instance sets aside for enclaves, counting those in use.",
		"Ask for fewer, or start the daemon with more: nesim serve --cpus N --ne-cpus LIST.",
	},
	MalformedCPUID: {"a CPU number could not be read", "The CPU pool's list holds something that is not a number.", "Correct the list given to nesim serve --ne-cpus."},
	CPU:            {"a CPU range could not be read", "The CPU pool's list holds a range with other than two ends.", "Correct the list given to nesim serve --ne-cpus."},
	NoSuchHugepageFlag: {
		"an unknown size of huge pages", "nitro-cli was to use huge pages of a size that it does not know. " + unused, "",
	},
	InsufficientMemoryRequested: {
		"too little memory asked for",
		"--memory is zero, or less than four times the image's size, the least that nitro-cli gives an enclave.",
		"Give --memory at least what the message says.",
	},
	InsufficientMemoryAvailable: {
		"the memory is not there",
		"The instance has not as much memory for enclaves as was asked for.",
		"Ask for less, or end another enclave: nesim terminate-enclave.",
	},
	InvalidEnclaveFD: {"no descriptor for the enclave", "The driver's NE_CREATE_VM returned no descriptor.", "The daemon's log tells why."},
	IoctlFailure: {
		"the NE driver refused",
		"A request to the Nitro Enclaves driver failed: for a slot, memory, a CPU, or the start. All slots may be in use, a CPU's core may be given only in part, or another enclave may have the CID.",
		"The message has the driver's reason and, where it knows more, the hypervisor's.",
	},
	IoctlImageLoadInfoFailure:   {"the driver did not say where the image goes", "NE_GET_IMAGE_LOAD_INFO failed; nitro-cli returns E29 in its place now.", ""},
	IoctlSetMemoryRegionFailure: {"the driver refused memory", "NE_SET_USER_MEMORY_REGION failed; nitro-cli returns E29 in its place now.", ""},
	IoctlAddVCPUFailure:         {"the driver refused a CPU", "NE_ADD_VCPU failed; nitro-cli returns E29 in its place now.", ""},
	IoctlEnclaveStartFailure:    {"the driver did not start the enclave", "NE_START_ENCLAVE failed; nitro-cli returns E29 in its place now.", ""},
	MemoryOverflow: {
		"the image does not fit",
		"The image, with the room before it, is longer than the memory it is written to.",
		"Give more --memory.",
	},
	EIFParsing: {
		"the image is not a good EIF",
		"The file is no Enclave Image File, is cut short or damaged, or is for other processors.",
		"Compare it with where it came from, or build it again. nesim describe-eif checks one.",
	},
	EnclaveBootFailure: {
		"the enclave did not boot",
		"The enclave was started but its init did not send its heartbeat, a byte to CID 3 port 9000, in time, or it ended before.",
		"The message has the cause, if the kernel, init or QEMU reported one, or else the console's last lines. Run it with --debug-mode to read all of them by nesim console, after its end too.",
	},
	EnclaveEventWait:                 {"waiting for the enclave failed", "The enclave's descriptor could not be polled. " + unused, ""},
	EnclaveProcessCommandNotExecuted: {"a request was not carried out", "Some process of an enclave refused to describe or to end it.", "The daemon's log tells why."},
	EnclaveProcessConnectionFailure: {
		"an enclave's process is gone",
		"The daemon ended while it was starting the enclave. nitro-cli ends with this code whenever the process that it started for the enclave fails, after printing the cause's own code; nesim then exits with the cause's.",
		"The daemon's log tells why it ended. The next command starts another.",
	},
	SocketPathNotFound:             {"no socket for the enclave", "nitro-cli could not derive the name of the enclave's socket from its ID. " + unused, ""},
	EnclaveProcessSendReplyFailure: {"an answer could not be sent", "The command was gone before its answer. " + unused, ""},
	EnclaveMmap:                    {"memory could not be mapped", "The enclave's memory could not be allocated.", "nesim doctor shows the host's free memory."},
	EnclaveMunmap:                  {"memory could not be unmapped", "The enclave's memory could not be given back. " + unused, ""},
	EnclaveConsoleConnectionFailure: {
		"the console cannot be reached",
		"The enclave has no console, as it does not run in debug mode, or nothing answers there.",
		"Run the enclave with --debug-mode or --attach-console.",
	},
	EnclaveConsoleRead: {
		"the console broke off", "Reading from the enclave's console failed.", "nesim describe-enclaves tells whether the enclave still runs.",
	},
	EnclaveConsoleWriteOutput: {"the console's text could not be written", "The console was read, but where the text goes takes no more.", "Look at what standard output is connected to."},
	IntegerParsing:            {"a CID could not be read", "The CID of the enclave is no number of 32 bits. " + unused, ""},
	EIFBuilding: {
		"the image could not be built",
		"A part of the image is missing or unusable: the kernel, the init, the file system, or the metadata.",
		"The message tells which.",
	},
	DockerImageBuild:    {"the container image could not be built", "--docker-dir was given and its Dockerfile did not build.", "Build it by hand to see why."},
	DockerImagePull:     {"the container image could not be fetched", "The image is neither in the engine nor in the registry, or neither answered.", "Check its name, and that the engine runs or the registry is reachable."},
	ArtifactsPathNotSet: {"no folder for intermediate files", "nitro-cli wants HOME or NITRO_CLI_ARTIFACTS set for a build. nesim needs neither.", ""},
	BlobsPathNotSet:     {"no folder of kernel and init", "NITRO_CLI_BLOBS names no usable folder.", "Set it, or leave it out to take nesim's own init and the kernel that make deps fetches."},
	ClockSkew:           {"the clock went backwards", "The time since the last read of the console was negative. " + unused, ""},
	SignalMasking:       {"signals could not be held back", "nitro-cli could not mask signals before it started an enclave's process. " + unused, ""},
	SignalUnmasking:     {"signals could not be let through", "nitro-cli could not unmask signals after it started an enclave's process. " + unused, ""},
	Logger:              {"the log could not be opened", "The log cannot be written.", "For nesim it is nesim.log in the daemon's folder: look at its owner, or set NESIM_DIR."},
	Hasher: {
		"a measurement failed",
		"What was to be measured could not be: mostly because the file given to pcr --signing-certificate holds no certificate in PEM form.",
		"Convert the certificate: openssl x509 -inform DER -in FILE.",
	},
	EnclaveNaming: {
		"no enclave of that name",
		"No running enclave has the name given by --enclave-name.",
		"nesim describe-enclaves lists the names.",
	},
	EIFSignatureChecker: {
		"the image's signature is not good",
		"The signature was not made with the certificate's key, is for another image, or the certificate is out of its dates.",
		"Sign the image again: nesim sign-eif replaces a signature.",
	},
	EIFSigning: {
		"the image could not be signed",
		"Key or certificate are missing or do not belong together, the key is not on P-256, P-384 or P-521, or the command that keeps the key failed.",
		"Check both; openssl x509 -noout -pubkey and openssl pkey -pubout must print the same.",
	},
}
