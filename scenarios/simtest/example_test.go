package simtest_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/nesim/nesim/pcidev"
	"github.com/nesim/nesim/scenarios/fault"
	"github.com/nesim/nesim/scenarios/scripted"
	"github.com/nesim/nesim/scenarios/simtest"
	"github.com/nesim/nesim/sim/hypervisor"
)

// An enclave is run, talked to, and crashes on command. The parent's file hangs up.
func Example() {
	var t *testing.T // your test's
	simtest.Test(t, func(i *simtest.Instance) {
		e := i.Run(simtest.Spec{Behaviour: scripted.Behaviour{Boot: 3 * time.Second}})
		fmt.Println("up after", i.Now().Truncate(time.Second))
		fmt.Println(e.Call("panic"))
		e.ExpectHangUp()
		fmt.Println(e.ExpectExit(hypervisor.ExitGuestPanic))
	})
	// Output:
	// up after 3s
	// panicking the kernel
	// guest panic: sysrq triggered crash
}

// The device refuses the second vCPU, and loses the event of an enclave's end.
func ExampleInstance_Break() {
	var t *testing.T // your test's
	simtest.Test(t, func(i *simtest.Instance) {
		i.Break(fault.Fault{At: fault.Reply, Command: pcidev.CmdSlotAddVCPU, Nth: 2, Do: fault.Errno, Errno: 5})
		_, err := i.TryRun(simtest.Spec{Name: "first"})
		fmt.Println(err)

		i.Break(fault.Fault{At: fault.Event, Do: fault.Lose})
		e := i.Run(simtest.Spec{Name: "second"})
		e.Kill()
		e.ExpectExit(hypervisor.ExitKilled)
		time.Sleep(24 * time.Hour)
		e.ExpectRunning() // as far as the parent knows
		e.Terminate()
	})
	// Output:
	// run first: add a vCPU: the Nitro Enclaves device refuses SLOT_ADD_VCPU: input/output error
}

// What an enclave sends to the parent, and its console.
func ExampleInstance_Listen() {
	var t *testing.T // your test's
	simtest.Test(t, func(i *simtest.Instance) {
		l := i.Listen(7000)
		e := i.Run(simtest.Spec{Behaviour: scripted.Behaviour{Dials: []scripted.DialOut{{At: time.Minute, Port: 7000, Text: "help"}}}})
		conn, _ := l.Accept()
		text, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "what is it?")
		conn.Close()
		fmt.Println(string(text))
		fmt.Println(e.ExpectConsole(`answers ".*"`))
	})
	// Output:
	// help
	// answers "what is it?"
}
