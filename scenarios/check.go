package scenarios

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/sim/vsock"
)

// check finds what no single value shows: steps that cannot be.
func check(s *Scenario) (errs []error) {
	c := &checker{scenario: s, known: map[thing]bool{{enclaves, ""}: true, {processes, "main"}: true}}
	for i := range s.Faults {
		c.fault(&s.Faults[i])
	}
	if len(s.Steps) == 0 {
		c.fail(s.Place, "a scenario without steps shows nothing: give it some")
	}
	c.steps(s.Steps)
	return c.errs
}

type checker struct {
	scenario *Scenario
	known    map[thing]bool
	errs     []error
}

// thing is something that a step gives a name.
type thing struct{ kind, name string }

// The kinds of things.
const (
	enclaves  = "an enclave"
	processes = "a process"
	ends      = "a connection or a listener"
	memories  = "memory"
	slots     = "a slot"
	images    = "an image"
)

func (c *checker) fail(at Place, format string, args ...any) {
	c.errs = append(c.errs, &Error{at.File, at.Line, at.Column, fmt.Sprintf(format, args...)})
}

func (c *checker) steps(steps []Step) {
	for i := range steps {
		c.step(&steps[i])
	}
}

func (c *checker) step(s *Step) {
	names := slices.Sorted(maps.Keys(s.Parallel))
	for _, name := range names { // a branch may wait for what another makes
		for i := range s.Parallel[name] {
			c.make(&s.Parallel[name][i])
		}
	}
	for _, name := range names {
		c.steps(s.Parallel[name])
	}
	for _, used := range s.uses() {
		if used.name != "" && !c.known[used] {
			c.fail(s.Place, "no step before this one makes %s %q%s", used.kind, used.name, meant(used.name, c.names(used.kind)))
		}
	}
	c.make(s)
	c.values(s)
}

// make takes notice of what a step makes.
func (c *checker) make(s *Step) {
	for _, made := range s.makes() {
		c.known[made] = true
	}
}

func (c *checker) names(kind string) (names []string) {
	for known := range c.known {
		if known.kind == kind {
			names = append(names, known.name)
		}
	}
	slices.Sort(names)
	return names
}

// values checks what a step says.
func (c *checker) values(s *Step) {
	if s.ExpectError != "" {
		if _, err := ParseErrno(s.ExpectError); err != nil {
			c.fail(s.Place, "expect_error: %v", err)
		}
	}
	for _, pattern := range s.patterns() {
		if _, err := regexp.Compile(pattern); err != nil {
			c.fail(s.Place, "%q is no regular expression: %v", pattern, err)
		}
	}
	if s.Build != nil && (s.Build.As == "hello" || s.Build.As == "none") {
		c.fail(s.Place, "%q is the name of an image already: choose another", s.Build.As)
	}
	scripted := s.Start != nil && s.Start.Does != nil || s.Run != nil && s.Run.Does != nil
	switch {
	case s.Fault != nil:
		c.fault(s.Fault)
	case s.PCI != nil:
		c.pci(s)
	case s.Ioctl != nil:
		if _, _, err := s.Ioctl.Encode(); err != nil {
			c.fail(s.Place, "%v", err)
		}
	case s.Exec != nil && c.scenario.On("scripted"):
		c.fail(s.Place, "exec takes real time: give the scenario engines: [qemu]")
	case s.Exec != nil:
		c.ports(s)
	case scripted && c.scenario.On("qemu"):
		c.fail(s.Place, "does is for scripted enclaves: give the scenario engines: [scripted]")
	case s.AddMemory != nil && s.AddMemory.Size == 0 && s.AddMemory.Again == "":
		c.fail(s.Place, `"size" is missing`)
	case s.Send != nil:
		c.one(s, "text, hex or size", s.Send.Text != "", s.Send.Hex != "", s.Send.Size > 0)
	case s.Expect != nil:
		x := s.Expect
		c.one(s, "text, regexp, size, eof, reset or silent", x.Text != "", x.Regexp != "", x.Size > 0, x.EOF, x.Reset, x.Silent)
	case s.Close != nil:
		c.one(s, "on or enclave", s.Close.On != "", s.Close.Enclave != "")
	}
}

// one checks that a step has one of several keys.
func (c *checker) one(s *Step, keys string, set ...bool) {
	n := 0
	for _, is := range set {
		if is {
			n++
		}
	}
	if n != 1 {
		c.fail(s.Place, "give one of %s, not %d", keys, n)
	}
}

// ports checks those that a program serves.
func (c *checker) ports(s *Step) {
	for i, port := range s.Exec.Listen {
		switch {
		case port == 0 || port == vsock.PortAny:
			c.fail(s.Place, "nobody can connect to port %d: listen on 1 to %d", port, vsock.PortAny-1)
		case slices.Contains(s.Exec.Listen[:i], port):
			c.fail(s.Place, "port %d is here twice", port)
		}
	}
}

func (c *checker) pci(s *Step) {
	if _, err := s.PCI.Request(0, 0); err != nil {
		c.fail(s.Place, "%v", err)
	}
	if s.PCI.RC != "" {
		if _, err := ParseErrno(s.PCI.RC); err != nil {
			c.fail(s.Place, "rc: %v", err)
		}
	}
}

// makes are the things that the step gives names.
func (s *Step) makes() []thing {
	switch {
	case s.Build != nil:
		return []thing{{images, s.Build.As}}
	case s.Create != nil:
		return []thing{{enclaves, s.Create.Enclave}, {processes, s.Create.Process}}
	case s.Run != nil:
		return []thing{{enclaves, s.Run.Enclave}, {processes, s.Run.Process}}
	case s.AddMemory != nil:
		return []thing{{memories, s.AddMemory.As}, {processes, s.AddMemory.Process}}
	case s.Ioctl != nil:
		return []thing{{processes, s.Ioctl.Process}}
	case s.PCI != nil:
		return []thing{{slots, s.PCI.Save}}
	case s.Dial != nil:
		return []thing{{ends, s.Dial.As}}
	case s.Listen != nil:
		return []thing{{ends, s.Listen.As}}
	case s.Accept != nil:
		return []thing{{ends, s.Accept.As}}
	}
	return nil
}

// uses are the things that must be there; the empty name is none.
func (s *Step) uses() []thing {
	switch {
	case s.AddMemory != nil:
		return []thing{{enclaves, s.AddMemory.Enclave}, {memories, s.AddMemory.Again}}
	case s.PCI != nil:
		return []thing{{slots, s.PCI.Slot}}
	case s.Accept != nil:
		return []thing{{enclaves, s.Accept.From}, {ends, s.Accept.On}}
	case s.Send != nil:
		return []thing{{ends, s.Send.On}}
	case s.Expect != nil:
		return []thing{{ends, s.Expect.On}}
	case s.Close != nil:
		return []thing{{ends, s.Close.On}, {enclaves, s.Close.Enclave}}
	case s.Exit != nil:
		return []thing{{processes, s.Exit.Process}}
	}
	return []thing{{enclaves, s.enclave()}}
}

// enclave names the enclave that the step is about, and about nothing else.
func (s *Step) enclave() string {
	switch {
	case s.AddCPU != nil:
		return s.AddCPU.Enclave
	case s.ImageInfo != nil:
		return s.ImageInfo.Enclave
	case s.Start != nil:
		return s.Start.Enclave
	case s.Heartbeat != nil:
		return s.Heartbeat.Enclave
	case s.Ioctl != nil:
		return s.Ioctl.Enclave
	case s.Dial != nil:
		return s.Dial.Enclave
	case s.Call != nil:
		return s.Call.Enclave
	case s.Attest != nil:
		return s.Attest.Enclave
	case s.Console != nil:
		return s.Console.Enclave
	case s.Poll != nil:
		return s.Poll.Enclave
	case s.Slot != nil:
		return s.Slot.Enclave
	case s.Ended != nil:
		return s.Ended.Enclave
	case s.Terminate != nil:
		return s.Terminate.Enclave
	case s.Signal != nil:
		return s.Signal.Enclave
	}
	return ""
}

// patterns are the regular expressions of a step.
func (s *Step) patterns() (all []string) {
	switch {
	case s.Call != nil:
		all = append(all, s.Call.Answer)
	case s.Console != nil:
		all = append(all, s.Console.Regexp)
	case s.Expect != nil:
		all = append(all, s.Expect.Regexp)
	case s.Seen != nil:
		all = append(append(all, s.Seen.Regexp), s.Seen.Then...)
	case s.Exec != nil:
		all = append(all, s.Exec.Output)
	}
	return all
}

// onEngines are the engines that the scenario can run on.
func (s *Scenario) onEngines() []string {
	if len(s.Engines) == 0 {
		return []string{"scripted", "qemu"}
	}
	return s.Engines
}

// On tells whether the scenario can run on an engine.
func (s *Scenario) On(engine string) bool { return slices.Contains(s.onEngines(), engine) }

// actions are what can be done at each point.
var actions = map[fault.Point][]fault.Action{
	fault.Reply:     {fault.Delay, fault.Lose, fault.Errno, fault.Garbage},
	fault.Event:     {fault.Delay, fault.Lose, fault.Double, fault.Storm},
	fault.Start:     {fault.Refuse},
	fault.Image:     {fault.Corrupt},
	fault.Heartbeat: {fault.Delay, fault.Lose, fault.Garbage, fault.Double, fault.Drop, fault.Refuse},
	fault.Vsock:     {fault.Delay, fault.Refuse, fault.Reset, fault.Half, fault.Stall, fault.Limit},
	fault.NSM:       {fault.Garbage, fault.Error, fault.Expire, fault.Skew},
}

func (c *checker) fault(f *Fault) {
	if !slices.Contains(actions[f.At], f.Do) {
		c.fail(f.Place, "a fault at %s cannot do %s: choose %v", f.At, f.Do, actions[f.At])
	}
	if f.Command != "" {
		if _, err := ParseCommand(f.Command); err != nil {
			c.fail(f.Place, "%v", err)
		}
	}
	if f.Do == fault.Errno {
		if _, err := ParseErrno(f.Errno); err != nil {
			c.fail(f.Place, "errno: %v", err)
		}
	}
	if f.Chance < 0 || f.Chance > 1 {
		c.fail(f.Place, "a chance of %v: want 0 to 1", f.Chance)
	}
}

// Arm gives the fault in the form that a stage takes. The scenario has been checked.
func (f *Fault) Arm() fault.Fault {
	command, _ := ParseCommand(f.Command)
	errno, _ := ParseErrno(f.Errno)
	name := f.Name
	if name == "" {
		name = fmt.Sprintf("%s %s", f.Do, f.At)
	}
	return fault.Fault{
		Name: name, At: f.At, Do: f.Do, Command: command, Enclave: f.Enclave, Port: f.Port,
		Nth: f.Nth, After: f.After.Std(), Chance: f.Chance, For: f.For.Std(), Errno: errno, Code: f.Code,
		Times: f.Times, Bytes: f.Bytes, Rate: f.Rate,
	}
}

// ParseCommand reads the name of a command of the PCI device; the empty name is none.
func ParseCommand(name string) (pcidev.Command, error) {
	var names []string
	for c := pcidev.CmdInvalid + 1; c < pcidev.CmdMax; c++ {
		if c.String() == name {
			return c, nil
		}
		names = append(names, c.String())
	}
	if name == "" {
		return pcidev.CmdInvalid, nil
	}
	return 0, fmt.Errorf("the device has no command %q%s", name, meant(name, names))
}
