package nedriver

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// parseCPUList reads a CPU list such as "2-5,7" for a machine with CPUs 0 to cpus-1 and returns the set as
// cpus booleans. Lists have the format of the kernel's CPU lists: numbers and ranges separated by commas or white
// space, "N" for the last CPU, "all", and "A-B:USED/GROUP" for the first USED of every GROUP CPUs.
// Source: Documentation/admin-guide/kernel-parameters.rst, "cpu-lists".
// Errors wrap EINVAL, EOVERFLOW (number above 32 bits), or ERANGE (no such CPU).
func parseCPUList(list string, cpus int) ([]bool, error) {
	set := make([]bool, cpus)
	p := cpuListParser{rest: list, last: uint64(cpus - 1)}
	for p.next() {
		if err := p.region(set); err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", list, err)
		}
	}
	return set, nil
}

type cpuListParser struct {
	rest string
	last uint64 // the number that "N" stands for
}

// next goes to the next region and reports whether there is one.
func (p *cpuListParser) next() bool {
	p.rest = strings.TrimLeft(p.rest, ", \t\n\v\f\r")
	return p.rest != "" && p.rest[0] != 0
}

// region reads one region into set.
func (p *cpuListParser) region(set []bool) error {
	start, end, err := p.span()
	if err != nil {
		return err
	}
	used, group := end+1, end+1
	if !p.atEnd() {
		if used, group, err = p.pattern(); err != nil {
			return err
		}
	} else if p.rest != "" && (p.rest[0] == '\n' || p.rest[0] == 0) {
		p.rest = "" // a line's end is the list's end
	}
	if start > end || group == 0 || used > group {
		return fmt.Errorf("%w: range %d-%d:%d/%d makes no sense", unix.EINVAL, start, end, used, group)
	}
	if end >= uint64(len(set)) {
		return fmt.Errorf("%w: CPU %d does not exist (CPUs are 0 to %d)", unix.ERANGE, end, p.last)
	}
	for cpu := start; cpu <= end; cpu++ {
		if (cpu-start)%group < used {
			set[cpu] = true
		}
	}
	return nil
}

// span reads "A", "A-B" or "all".
func (p *cpuListParser) span() (start, end uint64, err error) {
	if len(p.rest) >= 3 && strings.EqualFold(p.rest[:3], "all") {
		p.rest = p.rest[3:]
		return 0, p.last, nil
	}
	if start, err = p.number(); err != nil {
		return 0, 0, err
	}
	if p.atEnd() {
		return start, start, nil
	}
	if err = p.expect('-'); err != nil {
		return 0, 0, err
	}
	end, err = p.number()
	return start, end, err
}

// pattern reads ":USED/GROUP".
func (p *cpuListParser) pattern() (used, group uint64, err error) {
	if err = p.expect(':'); err != nil {
		return 0, 0, err
	}
	if used, err = p.number(); err != nil {
		return 0, 0, err
	}
	if err = p.expect('/'); err != nil {
		return 0, 0, err
	}
	group, err = p.number()
	return used, group, err
}

func (p *cpuListParser) number() (uint64, error) {
	if strings.HasPrefix(p.rest, "N") {
		p.rest = p.rest[1:]
		return p.last, nil
	}
	n, i := uint64(0), 0
	for ; i < len(p.rest) && p.rest[i] >= '0' && p.rest[i] <= '9'; i++ {
		if n = n*10 + uint64(p.rest[i]-'0'); n > 1<<32-1 {
			return 0, fmt.Errorf("%w: number too large", unix.EOVERFLOW)
		}
	}
	if i == 0 {
		return 0, fmt.Errorf("%w: a CPU number is wanted at %q", unix.EINVAL, p.rest)
	}
	p.rest = p.rest[i:]
	return n, nil
}

func (p *cpuListParser) expect(c byte) error {
	if p.rest == "" || p.rest[0] != c {
		return fmt.Errorf("%w: %q is wanted at %q", unix.EINVAL, c, p.rest)
	}
	p.rest = p.rest[1:]
	return nil
}

// atEnd reports whether the region is over: white space, a comma, or the end of the list.
func (p *cpuListParser) atEnd() bool {
	return p.rest == "" || strings.IndexByte(", \t\n\v\f\r\x00", p.rest[0]) >= 0
}
