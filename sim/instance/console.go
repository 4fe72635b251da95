package instance

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/sim/errcode"
	"github.com/nesim/nesim/sim/vsock"
)

// Console connects to the console of an enclave in debug mode. That of an enclave which has ended lately can be read, too;
// as many are kept as the VMM remembers machines.
func (i *Instance) Console(ctx context.Context, r Ref) (vsock.Conn, error) {
	e, err := i.find(r, true)
	if err != nil {
		return nil, err
	}
	if !e.debug {
		return nil, errcode.New(errcode.EnclaveConsoleConnectionFailure, "enclave %s has no console: run it with --debug-mode", e.name)
	}
	e.mu.Lock()
	cid := uint32(e.info.CID)
	e.mu.Unlock()
	if !e.hasEnded() {
		conn, err := i.DialVsock(ctx, vsock.CIDHypervisor, cid+vsock.ConsolePortBase)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return conn, err
		}
		select { // nobody listens: it is ending
		case <-e.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return i.lastConsole(e, cid)
}

func (e *enclave) hasEnded() bool {
	select {
	case <-e.ended:
		return true
	default:
		return false
	}
}

// lastConsole returns a connection on which the console of an enclave that has ended can be read.
func (i *Instance) lastConsole(e *enclave, cid uint32) (vsock.Conn, error) {
	text, ok := i.vmm.Console(e.slotUID)
	if !ok {
		return nil, errcode.New(errcode.EnclaveConsoleConnectionFailure, "enclave %s ended too long ago: its console is no longer kept", e.name)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, errEnding
	}
	port := cid + vsock.ConsolePortBase
	near, far := vsock.Pipe(vsock.Addr{ContextID: vsock.CIDParent, Port: port}, vsock.Addr{ContextID: vsock.CIDHypervisor, Port: port})
	i.watches.Go(func() { // ends when it is read or near is closed
		_, _ = far.Write(text)
		far.Close()
	})
	return near, nil
}
