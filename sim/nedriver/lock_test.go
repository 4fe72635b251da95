package nedriver

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/pcidev"
)

// slowPCI is a device that takes a minute for a command.
type slowPCI struct{ *fakePCI }

func (p slowPCI) do(req pcidev.Request) (pcidev.Reply, error) {
	time.Sleep(time.Minute)
	return p.fakePCI.do(req)
}

func TestWaitingForAnotherCallDoesNotStopAVirtualClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, err := NewHost(HostConfig{Topology: Topology{CPUs: 8}})
		require.NoError(t, err)
		d := newDriver(host, slowPCI{newFakePCI()})
		require.NoError(t, d.SetCPUs("2-7"))
		p := host.NewProcess()
		began := time.Now()
		var calls sync.WaitGroup
		for range 2 { // each waits for the driver's list, and then two for one enclave
			calls.Go(func() {
				e, err := d.Open(p).CreateVM()
				require.NoError(t, err)
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						_, err := e.AddVCPU(0)
						require.NoError(t, err)
					})
				}
				both.Wait()
			})
		}
		calls.Wait()
		require.GreaterOrEqual(t, time.Since(began), 3*time.Minute)
		require.NoError(t, p.Exit())
		require.NoError(t, d.Close())
	})
}
