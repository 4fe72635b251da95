package pcidev

import (
	"fmt"

	"github.com/nesim/nesim/internal/suggest"
)

// UnmarshalText reads the header's name of a command, such as SLOT_ALLOC.
func (c *Command) UnmarshalText(text []byte) error {
	name := string(text)
	for known := CmdInvalid + 1; known < CmdMax; known++ {
		if commandNames[known] == name {
			*c = known
			return nil
		}
	}
	if near := suggest.Nearest(name, commandNames[CmdInvalid+1:]); near != "" {
		return fmt.Errorf("unknown device command %.40q: did you mean %s?", name, near)
	}
	return fmt.Errorf("unknown device command %.40q: give one such as SLOT_ALLOC", name)
}

// StateName returns a word for a slot's state in a reply: init, running or stopped; the number for any other.
func StateName(state uint16) string {
	switch state {
	case StateInit:
		return "init"
	case StateRunning:
		return "running"
	case StateStopped:
		return "stopped"
	}
	return fmt.Sprintf("%#x", state)
}
