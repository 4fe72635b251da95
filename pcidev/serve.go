package pcidev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

// maxConnections bounds the drivers attached at a time; more are hung up on.
const maxConnections = 64

// Serve gives every connection to l a Device of its own with a Session of hv. It
// owns l. It returns nil once ctx is done, or the error of a listener that no
// longer works, in both cases after every connection's Session is closed.
func Serve(ctx context.Context, l *net.UnixListener, hv Hypervisor) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		<-ctx.Done()
		l.Close()
	})

	places := make(chan struct{}, maxConnections)
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case outOfDescriptors(err):
			if !sleep(ctx, 100*time.Millisecond) {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("accept on the PCI socket: %w", err)
		}
		select {
		case places <- struct{}{}:
			wg.Go(func() {
				_ = ServeConn(ctx, conn, hv)
				<-places
			})
		default:
			conn.Close()
		}
	}
}

func outOfDescriptors(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED)
}

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// ServeConn is Serve for one connection, which it owns. It returns when the client
// has gone (nil), ctx is done, or the client cannot be understood, after the
// Session is closed.
func ServeConn(ctx context.Context, conn *net.UnixConn, hv Hypervisor) error {
	dma, irqs := new(vfiouser.DMA), vfiouser.NewIRQs(NumVectors)
	defer dma.UnmapAll()
	d, err := NewDevice(hv, dma, irqs)
	if err != nil {
		conn.Close()
		return err
	}
	server := vfiouser.Server{Device: d, DMA: dma, IRQs: irqs}
	err = server.Serve(ctx, conn)
	return errors.Join(err, d.Close())
}
