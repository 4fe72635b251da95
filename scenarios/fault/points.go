package fault

import (
	"errors"
	"fmt"
	"slices"
)

// Point is where a fault strikes.
type Point string

// The points. One occasion at a point is one chance for a fault to strike.
const (
	Reply     Point = "reply"
	Event     Point = "event"
	Start     Point = "start"
	Image     Point = "image"
	Heartbeat Point = "heartbeat"
	Vsock     Point = "vsock"
	NSM       Point = "nsm"
)

// Action is what a fault does.
type Action string

// The actions.
const (
	Delay   Action = "delay"
	Lose    Action = "lose"
	Errno   Action = "errno"
	Garbage Action = "garbage"
	Double  Action = "double"
	Storm   Action = "storm"
	Refuse  Action = "refuse"
	Corrupt Action = "corrupt"
	Drop    Action = "drop"
	Reset   Action = "reset"
	Half    Action = "half"
	Stall   Action = "stall"
	Limit   Action = "limit"
	Error   Action = "error"
	Expire  Action = "expire"
	Skew    Action = "skew"
)

// PointKind describes a point: what counts as one occasion there, and what faults can do.
type PointKind struct {
	Point   Point
	Doc     string
	Actions []ActionKind
}

// ActionKind describes an action at a point. Needs names the parameter that it cannot do without, if any.
type ActionKind struct {
	Action Action
	Doc    string
	Needs  string
}

// Points are all points with their actions, in the order of the manual. Package stage carries them out.
var Points = []PointKind{
	{Reply, "the device answers a command", []ActionKind{
		{Delay, "answer `for` later", "for"},
		{Lose, "never answer; the command is done", ""},
		{Errno, "answer with rc -`errno`; the command is done", "errno"},
		{Garbage, "answer with random bytes; the command is done", ""},
	}},
	{Event, "the device raises its event vector", []ActionKind{
		{Delay, "raise it `for` later", "for"},
		{Lose, "do not raise it", ""},
		{Double, "raise it twice", ""},
		{Storm, "raise it `times` times", "times"},
	}},
	{Image, "the hypervisor reads an image from donated memory", []ActionKind{
		{Corrupt, "change the byte at offset `bytes`", ""},
	}},
	{Start, "the hypervisor starts an enclave's VM", []ActionKind{
		{Refuse, "the VM cannot be started", ""},
	}},
	{Heartbeat, "an enclave connects to CID 3 port 9000", []ActionKind{
		{Delay, "connect `for` later", "for"},
		{Lose, "never connect", ""},
		{Garbage, "send another byte", ""},
		{Double, "send it twice", ""},
		{Drop, "close the connection before the byte", ""},
		{Refuse, "refuse the connection", ""},
	}},
	{Vsock, "any other connection is made, in either direction", []ActionKind{
		{Delay, "deliver each packet `for` later", "for"},
		{Refuse, "refuse the connection", ""},
		{Reset, "reset it after `bytes`", ""},
		{Half, "end the enclave's direction after `bytes`", ""},
		{Stall, "take nothing more after `bytes`", ""},
		{Limit, "carry `rate` bytes per second", "rate"},
	}},
	{NSM, "an enclave sends its NSM a request", []ActionKind{
		{Error, "answer with the NSM error `code`", "code"},
		{Garbage, "answer with bytes that are not CBOR", ""},
		{Expire, "sign with certificates that have expired", ""},
		{Skew, "the NSM's clock is off by `for`", "for"},
	}},
}

// Check reports a fault that cannot be: an action that its point does not have, or a missing parameter.
func (f *Fault) Check() error {
	if f.Chance < 0 || f.Chance > 1 {
		return fmt.Errorf("chance must be 0 to 1, not %v", f.Chance)
	}
	for _, p := range Points {
		if p.Point == f.At {
			return f.checkAction(p)
		}
	}
	return fmt.Errorf("unknown point %q", f.At)
}

func (f *Fault) checkAction(p PointKind) error {
	i := slices.IndexFunc(p.Actions, func(a ActionKind) bool { return a.Action == f.Do })
	if i < 0 {
		var names []Action
		for _, a := range p.Actions {
			names = append(names, a.Action)
		}
		return fmt.Errorf("a fault at %s cannot do %s: choose one of %v", f.At, f.Do, names)
	}
	given := map[string]bool{
		"": true, "for": f.For != 0, "errno": f.Errno != 0, "times": f.Times > 0, "rate": f.Rate > 0, "code": f.Code != "",
	}
	if need := p.Actions[i].Needs; !given[need] {
		return fmt.Errorf("%s needs %q", f.Do, need)
	}
	if f.Nth < 0 || f.Times < 0 || f.Bytes < 0 || f.Rate < 0 {
		return errors.New("nth, times, bytes and rate must not be negative")
	}
	return nil
}
