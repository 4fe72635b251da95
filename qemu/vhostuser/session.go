package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// session is the state that one front end builds up by its requests. One
// goroutine owns it.
type session struct {
	dev      Device
	info     Info
	features uint64 // accepted by the driver
	protocol uint64 // accepted by the front end
	mem      *memory
	vrings   []vring
}

// vring is what the front end has said about one queue.
type vring struct {
	index   int
	num     uint16
	base    uint16
	addr    ringAddr
	hasAddr bool
	enabled bool
	kick    int // eventfds of ours; -1 is none
	call    int
	err     int
	queue   *Queue // while it is running or broken
}

func newSession(dev Device) *session {
	s := &session{dev: dev, info: dev.Info()}
	s.vrings = make([]vring, s.info.Queues)
	for i := range s.vrings {
		s.vrings[i] = vring{index: i, kick: -1, call: -1, err: -1}
	}
	return s
}

// close stops everything and lets go of the front end's descriptors and memory.
func (s *session) close() {
	for i := range s.vrings {
		v := &s.vrings[i]
		s.stop(v)
		for _, fd := range []*int{&v.kick, &v.call, &v.err} {
			replaceFD(fd, -1)
		}
	}
	s.mem.close()
	s.dev.Disconnected()
}

// handle serves one request. A nil reply means that the request has none of its
// own.
func (s *session) handle(m *Message) (reply []byte, err error) {
	switch m.Request {
	case GetFeatures:
		return word(s.offered()), nil
	case GetProtocolFeatures:
		return word(s.offeredProtocol()), nil
	case GetQueueNum:
		return word(uint64(s.info.Queues)), nil
	case GetConfig:
		return s.getConfig(m.Payload)
	case GetVringBase:
		return s.getVringBase(m.Payload)
	case SetOwner, ResetOwner:
		return nil, nil
	case SetFeatures:
		return nil, s.accept(&s.features, m.Payload, s.offered())
	case SetProtocolFeatures:
		return nil, s.accept(&s.protocol, m.Payload, s.offeredProtocol())
	case SetMemTable:
		return nil, s.setMemTable(m)
	case SetVringNum, SetVringBase, SetVringEnable:
		return nil, s.setVringState(m)
	case SetVringAddr:
		return nil, s.setVringAddr(m.Payload)
	case SetVringKick, SetVringCall, SetVringErr:
		return nil, s.setVringFD(m)
	case SetConfig:
		return nil, errors.New("the device's configuration cannot be written")
	}
	return nil, errors.New("not supported")
}

func (s *session) offered() uint64 {
	return s.info.Features | FeatureVersion1 | FeatureEventIdx | FeatureIndirectDesc | featureProtocol
}

// offeredProtocol leaves CONFIG out where there is nothing to configure: QEMU
// warns about it.
func (s *session) offeredProtocol() uint64 {
	f := ProtocolMQ | ProtocolReplyAck
	if s.info.Config != nil {
		f |= ProtocolConfig
	}
	return f
}

func (s *session) accept(to *uint64, payload []byte, offered uint64) error {
	if len(payload) != 8 {
		return sizeError(payload, 8)
	}
	f := binary.LittleEndian.Uint64(payload)
	if bad := f &^ offered; bad != 0 {
		return fmt.Errorf("features %#x were not offered", bad)
	}
	*to = f
	return nil
}

// getConfig serves GET_CONFIG: le32 offset, size and flags, then size bytes. An
// empty answer is an error.
func (s *session) getConfig(p []byte) ([]byte, error) {
	if len(p) < 12 {
		return nil, sizeError(p, 12)
	}
	off, size := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
	if uint64(len(p)) != 12+uint64(size) || s.info.Config == nil {
		return []byte{}, nil
	}
	reply := append([]byte(nil), p...)
	clear(reply[12:]) // what lies behind the device's configuration reads as zero
	if uint64(off) < uint64(len(s.info.Config)) {
		copy(reply[12:], s.info.Config[off:])
	}
	return reply, nil
}

// vringAt returns the queue of an index that the front end named.
func (s *session) vringAt(i uint32) (*vring, error) {
	if uint64(i) >= uint64(len(s.vrings)) {
		return nil, fmt.Errorf("queue %d of a device that has %d", i, len(s.vrings))
	}
	return &s.vrings[i], nil
}

// vringState decodes "A vring state description": le32 index, le32 num.
func (s *session) vringState(p []byte) (*vring, uint32, error) {
	if len(p) != 8 {
		return nil, 0, sizeError(p, 8)
	}
	v, err := s.vringAt(binary.LittleEndian.Uint32(p))
	return v, binary.LittleEndian.Uint32(p[4:]), err
}

func (s *session) getVringBase(p []byte) ([]byte, error) {
	v, _, err := s.vringState(p)
	if err != nil {
		return nil, err
	}
	s.stop(v)
	replaceFD(&v.kick, -1)
	reply := append([]byte(nil), p...)
	binary.LittleEndian.PutUint32(reply[4:], uint32(v.base))
	return reply, nil
}

func (s *session) setVringState(m *Message) error {
	v, n, err := s.vringState(m.Payload)
	if err != nil {
		return err
	}
	if m.Request == SetVringEnable {
		v.enabled = n != 0
		return s.update(v)
	}
	if v.queue != nil {
		return errQueueRuns
	}
	if m.Request == SetVringBase {
		if n > 0xffff {
			return fmt.Errorf("index %d does not fit in 16 bits", n)
		}
		v.base = uint16(n)
		return nil
	}
	if n == 0 || n > maxQueueSize || bits.OnesCount32(n) != 1 {
		return fmt.Errorf("queue size %d is not a power of two up to %d", n, maxQueueSize)
	}
	v.num = uint16(n)
	return nil
}

var errQueueRuns = errors.New("the queue is running")

// setVringAddr decodes "A vring address description": le32 index and flags, then
// le64 descriptor, used and available address and one for logging, which was
// not offered.
func (s *session) setVringAddr(p []byte) error {
	if len(p) != 40 {
		return sizeError(p, 40)
	}
	v, err := s.vringAt(binary.LittleEndian.Uint32(p))
	if err != nil {
		return err
	}
	if v.queue != nil {
		return errQueueRuns
	}
	v.addr = ringAddr{
		desc:  binary.LittleEndian.Uint64(p[8:]),
		used:  binary.LittleEndian.Uint64(p[16:]),
		avail: binary.LittleEndian.Uint64(p[24:]),
	}
	v.hasAddr = true
	return nil
}

// setVringFD takes the eventfd of SET_VRING_KICK, CALL or ERR.
func (s *session) setVringFD(m *Message) error {
	if len(m.Payload) != 8 {
		return sizeError(m.Payload, 8)
	}
	arg := binary.LittleEndian.Uint64(m.Payload)
	v, err := s.vringAt(uint32(arg & vringIndexMask))
	if err != nil {
		return err
	}
	fd := -1
	if arg&VringNoFD == 0 {
		if fd, err = m.takeFD(); err != nil {
			return err
		}
		if err := checkEventFD(fd); err != nil {
			unix.Close(fd)
			return err
		}
	}
	switch m.Request {
	case SetVringCall:
		if v.queue != nil {
			v.queue.setCall(fd)
		}
		replaceFD(&v.call, fd)
	case SetVringErr:
		if v.queue != nil {
			v.queue.setErr(fd)
		}
		replaceFD(&v.err, fd)
	case SetVringKick:
		if fd < 0 {
			return errors.New("polling a queue without a kick is not supported")
		}
		s.stop(v)
		replaceFD(&v.kick, fd)
		return s.update(v)
	}
	return nil
}

// checkEventFD makes sure that fd is an eventfd that nobody here can block on.
// O_NONBLOCK is only ever set, never cleared: the flag is shared with the front end.
func checkEventFD(fd int) error {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	if !strings.HasPrefix(name, "anon_inode:[eventfd") {
		return fmt.Errorf("descriptor is %s, want an eventfd", name)
	}
	return unix.SetNonblock(fd, true)
}

// setMemTable maps the guest's memory anew. Running queues move over before the
// old mapping goes.
func (s *session) setMemTable(m *Message) error {
	mem, err := newMemory(m.Payload, m.FDs)
	if err != nil {
		return err
	}
	for i := range s.vrings {
		if v := &s.vrings[i]; v.queue != nil {
			v.queue.remap(mem, v.addr)
		}
	}
	s.mem.close()
	s.mem = mem
	return nil
}

// update starts or stops a queue as its state demands. A queue runs once it has a
// kick and is enabled; without protocol features it is enabled from the start.
func (s *session) update(v *vring) error {
	enabled := v.enabled || s.features&featureProtocol == 0
	switch {
	case v.queue != nil && !enabled:
		s.stop(v)
	case v.queue == nil && enabled && v.kick >= 0:
		if err := s.start(v); err != nil {
			signal(v.err)
			return err
		}
	}
	return nil
}

func (s *session) start(v *vring) error {
	switch {
	case s.features&FeatureVersion1 == 0:
		return errors.New("the driver speaks legacy virtio; " +
			"start QEMU with -global virtio-mmio.force-legacy=false")
	case v.num == 0 || !v.hasAddr || s.mem == nil:
		return errors.New("the queue is kicked before its size, address and memory are known")
	}
	r, err := mapRing(s.mem, v.num, v.addr, s.features&FeatureEventIdx != 0)
	if err != nil {
		return err
	}
	kick, err := unix.FcntlInt(uintptr(v.kick), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate the kick's eventfd: %w", err)
	}
	used := r.usedIdx()
	v.queue = &Queue{
		index:    v.index,
		start:    v.base,
		features: s.features &^ featureProtocol,
		dev:      s.dev,
		kick:     os.NewFile(uintptr(kick), "kick"),
		done:     make(chan struct{}),
		mem:      s.mem,
		ring:     r,
		callFD:   v.call,
		errFD:    v.err,
		next:     v.base,
		avail:    v.base,
		used:     used, published: used,
		running: true,
	}
	v.queue.launch()
	return nil
}

// stop ends a queue and remembers where it can go on.
func (s *session) stop(v *vring) {
	if v.queue != nil {
		v.base = v.queue.stop()
		v.queue = nil
	}
}

func replaceFD(old *int, fd int) {
	if *old >= 0 {
		unix.Close(*old)
	}
	*old = fd
}

func word(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func sizeError(p []byte, want int) error {
	return fmt.Errorf("payload of %d bytes, want %d", len(p), want)
}
