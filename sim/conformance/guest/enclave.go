package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"github.com/nesim/nesim/internal/guestwire"
	"github.com/nesim/nesim/sim/conformance"
	"github.com/nesim/nesim/sim/nedriver"
)

const hangUpWait = 2 * time.Minute

// enclave is one with its memory.
type enclave struct {
	w       *world
	fd      int
	regions [][]byte // in the order of their donation
}

func create(w *world) *enclave {
	fd, code := w.CreateVM()
	checkThat(code == 0, "NE_CREATE_VM: %d", code)
	return &enclave{w: w, fd: fd}
}

// write writes into the enclave's memory, from an offset on, across its regions.
func (e *enclave) write(offset int, data []byte) {
	for _, region := range e.regions {
		if offset < len(region) {
			data = data[copy(region[offset:], data):]
		}
		offset = max(0, offset-len(region))
	}
	checkThat(len(data) == 0, "the image does not fit")
}

func (e *enclave) donate() {
	for _, region := range e.regions {
		arg := words(0, uint64(len(region)), addressOf(region))
		code := e.w.Ioctl(e.fd, nedriver.NESetUserMemoryRegion, arg)
		checkThat(code == 0, "NE_SET_USER_MEMORY_REGION of %d bytes: %d", len(region), code)
	}
}

// start adds a core and starts the enclave.
func (e *enclave) start(cid uint64) {
	for range 2 {
		code := e.w.Ioctl(e.fd, nedriver.NEAddVCPU, make([]byte, 4))
		checkThat(code == 0, "NE_ADD_VCPU: %d", code)
	}
	arg := words(nedriver.NEEnclaveDebugMode, cid)
	code := e.w.Ioctl(e.fd, nedriver.NEStartEnclave, arg)
	checkThat(code == 0, "NE_START_ENCLAVE: %d", code)
}

// awaitHangUp waits for the enclave's end.
func (e *enclave) awaitHangUp() {
	fds := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(hangUpWait); ; {
		n, err := unix.Poll(fds, int(time.Until(end).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		check(err)
		checkThat(n == 1 && fds[0].Revents == unix.POLLHUP, "poll: %d, %#x, want POLLHUP", n, fds[0].Revents)
		return
	}
}

// huge maps huge pages and has them allocated in a jumbled order, so that neighbours are not physically contiguous.
func huge(w *world, size uint64) []byte {
	region := bytesAt(uint64(w.mmap(uintptr(size), unix.MAP_HUGETLB|unix.MAP_HUGE_2MB)), size)
	for _, page := range rand.Perm(int(size / hugePage)) {
		region[page*hugePage] = 1
	}
	return region
}

func listenHeartbeats() *vsock.Listener {
	listener, err := vsock.Listen(guestwire.HeartbeatPort, nil)
	check(err)
	return listener
}

// acceptHeartbeat answers one heartbeat and returns whose it is.
func acceptHeartbeat(listener *vsock.Listener) uint32 {
	conn, err := listener.Accept()
	check(err)
	defer conn.Close()
	b := make([]byte, 1)
	_, err = conn.Read(b)
	check(err)
	checkThat(b[0] == guestwire.Heartbeat, "heartbeat %#x", b[0])
	_, err = conn.Write(b)
	check(err)
	return conn.RemoteAddr().(*vsock.Addr).ContextID
}

// run runs enclaves at once until they end.
func run(image []byte, cids []string) {
	w := newWorld()
	listener := listenHeartbeats()
	var all sync.WaitGroup
	for _, cid := range cids {
		e := create(w)
		e.regions = [][]byte{huge(w, 256*mib)}
		e.write(nedriver.EIFLoadOffset, image)
		e.donate()
		e.start(number(cid))
		all.Go(func() {
			e.awaitHangUp()
			fmt.Println("hang-up", cid)
			e.w.Close(e.fd)
		})
	}
	for range cids {
		fmt.Println("heartbeat", acceptHeartbeat(listener))
	}
	listener.Close()
	all.Wait()
}

// memory donates memory in several regions of scattered pages, and one page of 1 GiB, and looks at it while the
// enclave runs and after its end.
func memory(image []byte, cid uint64) {
	w := newWorld()
	e := create(w)
	for _, size := range []uint64{16 * mib, 6 * mib, 32 * mib, 64 * mib} {
		e.regions = append(e.regions, huge(w, size))
	}
	gigantic := w.mmap(1024*mib, unix.MAP_HUGETLB|unix.MAP_HUGE_1GB)
	e.regions = append(e.regions, bytesAt(uint64(gigantic), 1024*mib))
	e.fill(0xA5)
	e.write(nedriver.EIFLoadOffset, image)
	e.donate()
	listener := listenHeartbeats()
	e.start(cid)
	e.mustBeZero("after the start")
	checkThat(acceptHeartbeat(listener) == uint32(cid), "another's heartbeat")
	listener.Close()
	e.fill(0x5A) // the parent's own pages: nothing that the enclave uses
	echo(uint32(cid))
	w.Close(e.fd)
	e.mustBeZero("after the end")
	fmt.Println("donated memory is zero after the start, none of the enclave's while it runs, and zero after its end")
}

// fill writes to every page of 4 KiB.
func (e *enclave) fill(b byte) {
	for _, region := range e.regions {
		for at := 0; at < len(region); at += 4096 {
			region[at], region[at+64] = b, b
		}
	}
}

// mustBeZero looks at a word in each line of the processor's cache.
func (e *enclave) mustBeZero(when string) {
	const stride = 64
	for i, region := range e.regions {
		for at := 0; at < len(region); at += stride {
			if *(*uint64)(ptr(region[at:])) != 0 {
				check(fmt.Errorf("region %d is not zero at %#x %s", i, at, when))
			}
		}
	}
}

// echo talks to the enclave, once its workload is up.
func echo(cid uint32) {
	var conn *vsock.Conn
	var err error
	for range 200 {
		if conn, err = vsock.Dial(cid, guestwire.EchoPort, nil); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	check(err)
	defer conn.Close()
	_, err = conn.Write([]byte("still there?"))
	check(err)
	b := make([]byte, 12)
	_, err = conn.Read(b)
	check(err)
	checkThat(string(b) == "still there?", "echo %q", b)
}

func words(values ...uint64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

var _ conformance.World = (*world)(nil)
