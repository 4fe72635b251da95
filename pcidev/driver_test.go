package pcidev

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/pcidev/vfiouser"
)

// driver is the least a driver does: ne_do_request of ne_pci_dev.c.
type driver struct {
	*vfiouser.Client
	reply, event *vfiouser.Interrupt
	buf          []byte
}

func newDriver(tb testing.TB, conn *net.UnixConn) *driver {
	c, err := vfiouser.NewClient(context.Background(), conn)
	require.NoError(tb, err)
	d := &driver{Client: c}
	d.reply, err = c.NewInterrupt()
	require.NoError(tb, err)
	d.event, err = c.NewInterrupt()
	require.NoError(tb, err)
	require.NoError(tb, c.SetIRQs(vfiouser.IRQMSIX, 0, d.reply.FD(), d.event.FD()))
	require.NoError(tb, c.RegionWrite(BAR, NEVersion, []byte{NEVersionMax, 0}))
	require.NoError(tb, c.RegionWrite(BAR, NEEnable, []byte{NEEnableOn}))
	return d
}

func (d *driver) close() {
	d.reply.Close()
	d.event.Close()
	d.Client.Close()
}

func (d *driver) do(req Request) (re Reply, err error) {
	d.buf = req.Append(d.buf[:0])
	cmd := le.AppendUint32(nil, uint32(req.Command()))
	if err = d.Post(BAR, vfiouser.Write{Offset: NESendData, Data: d.buf}, vfiouser.Write{Offset: NECommand, Data: cmd}); err != nil {
		return re, err
	}
	if err = d.reply.Wait(context.Background()); err != nil {
		return re, err
	}
	var b [ReplySize]byte
	if err = d.RegionRead(BAR, NERecvData, b[:]); err != nil {
		return re, err
	}
	if err = re.Decode(b[:]); err != nil {
		return re, err
	}
	return re, re.Err()
}
