package stage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dustin/go-humanize/english"
)

// resources is what the parent has, which must be the same in the end.
type resources struct {
	cpus   []int
	pages  []uint64
	memory uint64 // bytes in use
}

func (s *Stage) resources() (r resources) {
	r.cpus, r.memory = s.Host.OnlineCPUs(), s.Host.MemoryInUse()
	for _, pool := range s.cfg.HugePages {
		r.pages = append(r.pages, s.Host.FreeHugePages(pool.Node, pool.PageSize))
	}
	return r
}

// Close ends everything on the stage. The error names what was left over: slots, CPUs, memory, processes.
func (s *Stage) Close() error {
	close(s.gone)
	s.begin.Do(func() {}) // no more turns
	if s.turns.ended != nil {
		<-s.turns.ended
	}
	var errs []error
	if s.Driver != nil {
		errs = append(errs, s.Driver.Close())
	}
	if s.raw != nil {
		errs = append(errs, s.raw.close())
	}
	for _, f := range s.devices {
		f.close()
	}
	if s.Hypervisor != nil {
		errs = append(errs, s.Leftovers(), s.Hypervisor.Close())
	}
	if s.Host != nil && s.Heartbeats != nil {
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

// Leftovers reports slots that are still there, once all processes have exited.
func (s *Stage) Leftovers() error {
	left := s.Hypervisor.Slots()
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("%s left over, the first that of %s", english.PluralWord(len(left), "1 slot is", fmt.Sprintf("%d slots are", len(left))), s.nameOf(left[0].SlotUID))
}

// leftovers compares what the parent has with what it had.
func (s *Stage) leftovers() error {
	now := s.resources()
	if !slices.Equal(now.cpus, s.before.cpus) {
		return fmt.Errorf("the parent has CPUs %v, not %v as before", now.cpus, s.before.cpus)
	}
	if now.memory != s.before.memory {
		return fmt.Errorf("%d MiB of the parent's memory are still in use: processes or enclaves have not given them back",
			(now.memory-s.before.memory)>>20)
	}
	for i, pool := range s.cfg.HugePages {
		if now.pages[i] != s.before.pages[i] {
			return fmt.Errorf("the parent has %d huge pages of %d MiB free, not %d as before",
				now.pages[i], pool.PageSize>>20, s.before.pages[i])
		}
	}
	return nil
}
