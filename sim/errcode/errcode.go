// Package errcode has nitro-cli's error codes: an error may carry one, E01 to E60, across the daemon's JSON to the
// command that prints it and makes it the exit code. The numbers and names are those of nitro-cli's
// src/common/document_errors.rs; the explanations are nesim's own.
package errcode

import (
	"errors"
	"fmt"
	"strconv"
)

// Code is one of nitro-cli's error codes. Its number is the exit code of a command that fails with it. Zero is none.
type Code uint8

// The codes, by nitro-cli's names for them.
const (
	MissingArgument Code = iota + 1
	ConflictingArgument
	InvalidArgument
	SocketPairCreationFailure
	ProcessSpawnFailure
	DaemonizeProcessFailure
	ReadFromDiskFailure
	UnusableConnection
	SocketClose
	SocketConnectTimeout
	Socket
	Epoll
	Inotify
	InvalidCommand
	LockAcquireFailure
	ThreadJoinFailure
	Serde
	FilePermissions
	FileOperationFailure
	InvalidCPUConfiguration
	NoSuchCPUAvailableInPool
	InsufficientCPUs
	MalformedCPUID
	CPU
	NoSuchHugepageFlag
	InsufficientMemoryRequested
	InsufficientMemoryAvailable
	InvalidEnclaveFD
	IoctlFailure
	IoctlImageLoadInfoFailure
	IoctlSetMemoryRegionFailure
	IoctlAddVCPUFailure
	IoctlEnclaveStartFailure
	MemoryOverflow
	EIFParsing
	EnclaveBootFailure
	EnclaveEventWait
	EnclaveProcessCommandNotExecuted
	EnclaveProcessConnectionFailure
	SocketPathNotFound
	EnclaveProcessSendReplyFailure
	EnclaveMmap
	EnclaveMunmap
	EnclaveConsoleConnectionFailure
	EnclaveConsoleRead
	EnclaveConsoleWriteOutput
	IntegerParsing
	EIFBuilding
	DockerImageBuild
	DockerImagePull
	ArtifactsPathNotSet
	BlobsPathNotSet
	ClockSkew
	SignalMasking
	SignalUnmasking
	Logger
	Hasher
	EnclaveNaming
	EIFSignatureChecker
	EIFSigning

	last = EIFSigning
)

// String returns the code as nitro-cli writes it: E03.
func (c Code) String() string { return fmt.Sprintf("E%02d", uint8(c)) }

// Parse reads a code as people write it: E03, e3 or 3. E00, which nothing returns, is one too.
func Parse(text string) (Code, error) {
	digits := text
	if digits != "" && (digits[0] == 'E' || digits[0] == 'e') {
		digits = digits[1:]
	}
	n, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || Code(n) > last {
		return 0, New(InvalidArgument, "unknown error code %q: use E00 to %v", text, last)
	}
	return Code(n), nil
}

// Error is an error with a code.
type Error struct {
	Code Code
	Err  error
}

// Error returns the error's text, without its code.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that was given the code.
func (e *Error) Unwrap() error { return e.Err }

// New is fmt.Errorf with a code.
func New(code Code, format string, args ...any) error {
	return &Error{code, fmt.Errorf(format, args...)}
}

// Wrap gives err a code, unless it is nil or has one already: the code nearest to the cause is the most precise.
func Wrap(code Code, err error) error {
	if err == nil || code == 0 || Of(err) != 0 {
		return err
	}
	return &Error{code, err}
}

// Of returns the code that err carries, or 0.
func Of(err error) Code {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}
