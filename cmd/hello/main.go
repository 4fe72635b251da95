// Program hello is the workload of nesim's hello enclave. It prints a line to the console every second, echoes on vsock
// port 5005, and on port 5006 takes commands, one a line, each answered by one line:
//
//	env             tells the environment
//	attest [NONCE]  gives an attestation document with a nonce, which is in hex, in base64
//	exit N          exits with code N
//	crash           dies by SIGSEGV
//	panic           panics the enclave's kernel
//	poweroff        powers off
//	reboot          reboots, as the kernel's command line says
//	triple-fault    reboots by a triple fault, which is what a processor does that cannot go on
//	hang            stops, as a dead-locked workload does: the console falls silent and nothing answers any more,
//	                while the machine itself idles on
//
// A command that ends the enclave is answered before it acts. One that is given as arguments is run first of all, and
// answered on the console.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nesim/nesim/internal/guestwire"
)

func main() {
	if len(os.Args) > 1 {
		answer, act := command(strings.Join(os.Args[1:], " "))
		fmt.Println("hello:", answer)
		if act != nil {
			act()
		}
	}
	for port, handle := range map[uint32]func(*conn){guestwire.EchoPort: echo, guestwire.ControlPort: control} {
		l, err := listen(port)
		if err != nil {
			fmt.Println("hello:", err)
			os.Exit(1)
		}
		go l.serve(handle)
	}
	start := time.Now()
	for range time.Tick(time.Second) {
		fmt.Printf("hello from the enclave, up %d s\n", time.Since(start)/time.Second)
	}
}

// echo sends back what it receives, until the peer has sent all.
func echo(c *conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}
