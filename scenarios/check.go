package scenarios

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
)

// check finds what no single value shows: steps that cannot be.
func check(s *Scenario) (errs []error) {
	c := &checker{scenario: s, enclaves: map[string]bool{}, conns: map[string]bool{}}
	for i := range s.Faults {
		c.fault(&s.Faults[i], s.File, s.Line)
	}
	c.steps(s.Steps)
	return c.errs
}

type checker struct {
	scenario        *Scenario
	enclaves, conns map[string]bool
	errs            []error
}

func (c *checker) fail(file string, line int, format string, args ...any) {
	c.errs = append(c.errs, &Error{file, line, 1, fmt.Sprintf(format, args...)})
}

func (c *checker) steps(steps []Step) {
	for i := range steps {
		c.step(&steps[i])
	}
}

func (c *checker) step(s *Step) {
	for name := range s.Parallel {
		c.steps(s.Parallel[name])
	}
	if s.ExpectError != "" {
		if _, err := ParseErrno(s.ExpectError); err != nil {
			c.fail(s.File, s.Line, "expect_error: %v", err)
		}
	}
	if s.Fault != nil {
		c.fault(s.Fault, s.File, s.Line)
	}
	if s.PCI != nil {
		if _, err := ParseCommand(s.PCI.Command); err != nil {
			c.fail(s.File, s.Line, "%v", err)
		}
	}
	if s.Exec != nil && slices.Contains(c.scenario.onEngines(), "scripted") {
		c.fail(s.File, s.Line, "exec takes real time: give the scenario engines: [qemu]")
	}
	for _, pattern := range s.patterns() {
		if _, err := regexp.Compile(pattern); err != nil {
			c.fail(s.File, s.Line, "%q is no regular expression: %v", pattern, err)
		}
	}
	if name := s.makes(); name != "" {
		if c.enclaves[name] && s.Run == nil && s.Create == nil {
			return
		}
		c.enclaves[name] = true
	}
	if name := s.enclave(); name != "" && !c.enclaves[name] {
		c.fail(s.File, s.Line, "no step before this one makes an enclave %q", name)
	}
}

// makes names the enclave that the step makes, if it does.
func (s *Step) makes() string {
	switch {
	case s.Create != nil:
		return s.Create.Enclave
	case s.Run != nil:
		return s.Run.Enclave
	}
	return ""
}

// enclave names the enclave that the step is about, if it is about one that must be there.
func (s *Step) enclave() string {
	switch {
	case s.AddMemory != nil:
		return s.AddMemory.Enclave
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

func (c *checker) fault(f *Fault, file string, line int) {
	if !slices.Contains(actions[f.At], f.Do) {
		c.fail(file, line, "a fault at %s cannot do %s: choose %v", f.At, f.Do, actions[f.At])
	}
	if f.Command != "" {
		if _, err := ParseCommand(f.Command); err != nil {
			c.fail(file, line, "%v", err)
		}
	}
	if f.Do == fault.Errno {
		if _, err := ParseErrno(f.Errno); err != nil {
			c.fail(file, line, "errno: %v", err)
		}
	}
	if f.Chance < 0 || f.Chance > 1 {
		c.fail(file, line, "a chance of %v: want 0 to 1", f.Chance)
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
