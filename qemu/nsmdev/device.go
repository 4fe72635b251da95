// Package nsmdev is the virtio device behind /dev/nsm in a guest (device id 33,
// VIRTIO_ID_NITRO_SEC_MOD of include/uapi/linux/virtio_ids.h): it carries requests
// to a Nitro Secure Module and responses back, and knows nothing of what is in them.
//
// The device has one queue. Linux's driver (drivers/misc/nsm.c) puts a request and the
// room for its response into two chains, one behind the other, and wakes up at the first
// interrupt to find both used. So the first one is kept until the second has come: the
// driver may be caught between them. Other drivers may put both into one chain.
//
// The device has no goroutine and no lock of its own: all it does is done on the
// queue's goroutine, which package vhostuser starts and ends.
package nsmdev

import "github.com/nesim/nesim/qemu/vhostuser"

// Limits in bytes: NSM_REQUEST_MAX_SIZE and NSM_RESPONSE_MAX_SIZE of include/uapi/linux/nsm.h.
const (
	maxRequest  = 0x1000
	maxResponse = 0x3000
)

// Handler answers a request with a response of at most room bytes. A request that is too
// long is cut one byte behind the limit of 0x1000. It is valid until Handler returns.
type Handler func(request []byte, room int) []byte

// Device is a virtio NSM device: a vhostuser.Device for its guest's driver.
type Device struct {
	handler Handler

	chain   vhostuser.Chain // the one being looked at
	request vhostuser.Chain // the one that waits for its response's room
	waiting bool            // request is valid
	buf     [maxRequest + 1]byte
	size    int // of the request in buf
}

var _ vhostuser.Device = (*Device)(nil)

// New makes a device. It needs no closing.
func New(handler Handler) *Device { return &Device{handler: handler} }

// Info implements vhostuser.Device. There are no features and no configuration space.
func (d *Device) Info() vhostuser.Info { return vhostuser.Info{Queues: 1} }

// StartQueue implements vhostuser.Device. A driver that begins anew knows nothing of a
// request from before.
func (d *Device) StartQueue(q *vhostuser.Queue) { d.waiting = d.waiting && q.Start() != 0 }

// StopQueue implements vhostuser.Device.
func (d *Device) StopQueue(_ *vhostuser.Queue, err error) { d.waiting = d.waiting && err == nil }

// Disconnected implements vhostuser.Device.
func (d *Device) Disconnected() { d.waiting = false }

// Process implements vhostuser.Device.
func (d *Device) Process(q *vhostuser.Queue) error {
	for q.Next(&d.chain) {
		readable, writable := d.chain.ReadableLen() > 0, d.chain.WritableLen() > 0
		if readable && d.waiting { // no room has come for the one before
			q.Push(&d.request, 0)
			d.waiting = false
		}
		switch {
		case readable:
			d.size = d.chain.Read(d.buf[:])
			if writable {
				q.Push(&d.chain, d.answer())
				continue
			}
			d.request, d.chain = d.chain, d.request
			d.waiting = true
		case d.waiting:
			n := d.answer()
			q.Push(&d.request, 0)
			q.Push(&d.chain, n)
			d.waiting = false
		default: // nothing was asked
			q.Push(&d.chain, 0)
		}
	}
	return nil
}

// answer writes the response into the chain and returns its length.
func (d *Device) answer() int {
	return d.chain.Write(d.handler(d.buf[:d.size], min(d.chain.WritableLen(), maxResponse)))
}
