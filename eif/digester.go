package eif

import (
	"context"
	"crypto/sha512"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
)

const (
	chunkSize = 256 << 10 // small enough that the second goroutine finds it in the cache
	chunks    = 16        // 4 MiB in all: one goroutine may lag a while before the others wait for it
)

// role says which PCRs a section's data goes into.
type role uint8

const (
	unmeasured role = iota // none
	bootstrap              // PCR0 and PCR1
	app                    // PCR0 and PCR2
)

// chunk is a piece of a section on its way through the hashes.
type chunk struct {
	buf     []byte
	data    []byte // the part of buf in use
	role    role
	section int
	users   atomic.Int32 // goroutines that are not done with it
}

// digester measures sections that are fed to it in the file's order. One goroutine hashes everything for PCR0, which
// takes longest; the other hashes for PCR2 and computes the CRC32s. PCR1 covers the beginning of what PCR0 covers, so
// it is a copy of PCR0's state at the point where they part, and costs nothing in every file that is built today.
type digester struct {
	size  int // of a chunk's buffer
	free  chan *chunk
	image chan *chunk
	rest  chan *chunk

	sections, ramdisks int // fed so far
	workers            sync.WaitGroup
	stopped            bool

	// The goroutines' results, to be read after stop.
	pcr0, pcr1, pcr2 Digest
	crcs             [MaxSections]uint32 // of each section's data
}

// newDigester starts the goroutines. The caller must call stop. hint is about how many bytes will be fed.
func newDigester(hint int64) *digester {
	d := &digester{
		size:  int(min(max(hint, 4<<10), chunkSize)),
		free:  make(chan *chunk, chunks),
		image: make(chan *chunk, chunks),
		rest:  make(chan *chunk, chunks),
	}
	for range chunks {
		d.free <- new(chunk)
	}
	d.workers.Go(d.hashImage)
	d.workers.Go(d.hashRest)
	return d
}

// feed reads one section's data from r to its end and returns its length. Each piece is given to sink, if there is
// one, before it is hashed.
func (d *digester) feed(ctx context.Context, k SectionKind, r io.Reader, sink func([]byte) error) (int64, error) {
	if d.sections == MaxSections {
		return 0, fmt.Errorf("more than %d sections", MaxSections)
	}
	role, section := d.role(k), d.sections
	d.sections++
	var total int64
	for {
		c, err := d.take(ctx)
		if err != nil {
			return total, err
		}
		n, err := io.ReadFull(r, c.buf)
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			d.free <- c
			return total, err
		}
		total += int64(n)
		c.data, c.role, c.section = c.buf[:n], role, section
		if sink != nil {
			if err := sink(c.data); err != nil {
				d.free <- c
				return total, err
			}
		}
		d.send(c)
		if end {
			return total, nil
		}
	}
}

func (d *digester) role(k SectionKind) role {
	switch k {
	case SectionKernel, SectionCmdline:
		return bootstrap
	case SectionRamdisk:
		d.ramdisks++
		if d.ramdisks == 1 {
			return bootstrap
		}
		return app
	}
	return unmeasured
}

func (d *digester) take(ctx context.Context) (*chunk, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := <-d.free // the goroutines give back all they get
	if c.buf == nil {
		c.buf = make([]byte, d.size)
	}
	return c, nil
}

func (d *digester) send(c *chunk) {
	c.users.Store(1)
	if c.role != unmeasured {
		c.users.Store(2)
		d.image <- c
	}
	d.rest <- c
}

func (d *digester) release(c *chunk) {
	if c.users.Add(-1) == 0 {
		d.free <- c
	}
}

// hashImage computes PCR0 and PCR1.
func (d *digester) hashImage() {
	image := sha512.New384()
	var boot hash.Hash // nil as long as it is the same as image
	for c := range d.image {
		if c.role == app && boot == nil {
			boot = clone(image)
		}
		image.Write(c.data)
		if c.role == bootstrap && boot != nil {
			boot.Write(c.data)
		}
		d.release(c)
	}
	d.pcr0 = extend(image.Sum(nil))
	d.pcr1 = d.pcr0
	if boot != nil {
		d.pcr1 = extend(boot.Sum(nil))
	}
}

// hashRest computes PCR2 and the sections' CRC32s.
func (d *digester) hashRest() {
	rest := sha512.New384()
	for c := range d.rest {
		if c.role == app {
			rest.Write(c.data)
		}
		d.crcs[c.section] = crc32.Update(d.crcs[c.section], crc32.IEEETable, c.data)
		d.release(c)
	}
	d.pcr2 = extend(rest.Sum(nil))
}

// stop ends the goroutines and waits for them. The results are complete after it.
func (d *digester) stop() {
	if !d.stopped {
		d.stopped = true
		close(d.image)
		close(d.rest)
		d.workers.Wait()
	}
}

func clone(h hash.Hash) hash.Hash {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // only a hash wrapped by another package can refuse
	}
	return c
}
