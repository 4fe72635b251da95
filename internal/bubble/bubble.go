// Package bubble runs functions on a virtual clock.
//
// Go has one virtual clock, that of testing/synctest, and the only way to it is a testing.T. A zero one that no test
// runs serves: it prints nothing, and as nobody calls its methods it fails nothing. This package is the one place that
// relies on that; its test says when a later Go no longer allows it.
package bubble

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// Run calls f in a bubble, where time passes only while every goroutine of the bubble waits, and returns when f and the
// goroutines that it started have ended. The error says that some of them can never go on.
func Run(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			text, _, _ := strings.Cut(fmt.Sprint(p), "\n")
			err = fmt.Errorf("the run came to a standstill: %s", text)
		}
	}()
	synctest.Test(new(testing.T), func(*testing.T) { f() })
	return nil
}

// Wait waits until every other goroutine of the caller's bubble waits.
func Wait() { synctest.Wait() }
