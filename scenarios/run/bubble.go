package run

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nesim/nesim/scenarios/trace"
)

// inBubble plays where time is virtual. Go has one virtual clock, that of testing/synctest, and the way to it leads
// through a testing.T. One that no test runs will do: it prints nothing, and as nobody calls its methods it fails nothing.
//
// A bubble in which nothing can go on any more ends by a panic.
func inBubble(r *trace.Result, play func()) {
	defer func() {
		if p := recover(); p != nil {
			text, _, _ := strings.Cut(fmt.Sprint(p), "\n")
			r.Status, r.Error = trace.Broken, "the run came to a standstill: "+text
		}
	}()
	synctest.Test(new(testing.T), func(*testing.T) { play() })
}
