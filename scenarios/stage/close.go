package stage

import (
	"errors"
	"fmt"
	"slices"
)

// resources is what the parent has, which must be the same in the end.
type resources struct {
	cpus  []int
	pages []uint64
}

func (s *Stage) resources() (r resources) {
	r.cpus = s.Host.OnlineCPUs()
	for _, pool := range s.cfg.HugePages {
		r.pages = append(r.pages, s.Host.FreeHugePages(pool.Node, pool.PageSize))
	}
	return r
}

// Close ends everything on the stage. The error names what was left over: slots, CPUs, memory, processes.
func (s *Stage) Close() error {
	close(s.gone)
	var errs []error
	if s.Driver != nil {
		errs = append(errs, s.Driver.Close())
	}
	if s.raw != nil {
		errs = append(errs, s.raw.bus.Close())
	}
	for _, f := range s.devices {
		f.close()
	}
	if s.Hypervisor != nil {
		if left := s.Hypervisor.Slots(); len(left) > 0 {
			errs = append(errs, fmt.Errorf("%d slots are left over, the first %#x", len(left), left[0].SlotUID))
		}
		errs = append(errs, s.Hypervisor.Close())
	}
	if s.Host != nil {
		errs = append(errs, s.leftovers())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.close())
	}
	if s.Net != nil {
		errs = append(errs, s.Net.Close())
	}
	s.held.Wait()
	return errors.Join(errs...)
}

// leftovers compares what the parent has with what it had.
func (s *Stage) leftovers() error {
	now := s.resources()
	if !slices.Equal(now.cpus, s.before.cpus) {
		return fmt.Errorf("the parent has CPUs %v, not %v as before", now.cpus, s.before.cpus)
	}
	for i, pool := range s.cfg.HugePages {
		if now.pages[i] != s.before.pages[i] {
			return fmt.Errorf("the parent has %d free huge pages of %d MiB, not %d as before",
				now.pages[i], pool.PageSize>>20, s.before.pages[i])
		}
	}
	return nil
}

// swallow keeps a guest's connection open and never answers on it, until the guest or the stage ends.
func (s *Stage) swallow(c *faultyConn) {
	s.held.Go(func() {
		defer c.Conn.Close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 1)
			for {
				if _, err := c.Conn.Read(buf); err != nil {
					return
				}
			}
		}()
		select {
		case <-ended:
		case <-s.gone:
			c.Conn.Close()
			<-ended
		}
	})
}
