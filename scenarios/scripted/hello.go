package scripted

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hf/nsm/request"
	"github.com/hf/nsm/response"

	"github.com/fxamacker/cbor/v2"

	"github.com/nesim/nesim/sim/vsock"
)

// hello prints a line every second, as the workload does.
func (g *guest) hello() {
	g.begin(func() {
		for n := 1; g.sleep(time.Second); n++ {
			if g.works() {
				g.say(fmt.Sprintf("hello from the enclave, up %d s", n))
			}
		}
	})
}

// works reports whether the workload does anything still.
func (g *guest) works() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.silent
}

// hang stops the workload. The kernel goes on accepting connections for it.
func (g *guest) hang() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silent = true
}

// attend takes the time that the workload takes over what has come. Where it hangs that is for ever.
func (g *guest) attend() bool {
	if !g.react() {
		return false
	}
	if !g.works() {
		<-g.ctx.Done()
		return false
	}
	return true
}

func (g *guest) echo(c vsock.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if !g.attend() || err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// control serves the command port.
func (g *guest) control(c vsock.Conn) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if !g.attend() {
			return
		}
		answer, act := g.command(lines.Text())
		if _, err := io.WriteString(c, answer+"\n"); err != nil {
			return
		}
		if act != nil {
			c.Close()                   // the answer is delivered before
			if g.sleep(g.latency / 2) { // and what is asked next comes too late
				act()
			}
			return
		}
	}
	g.react()
}

// endings are the commands that end the enclave.
var endings = map[string]struct {
	answer string
	how    How
}{
	"crash": {"crashing", Crash}, "panic": {"panicking the kernel", Panic},
	"poweroff": {"powering off", PowerOff}, "reboot": {"rebooting", Reboot}, "triple-fault": {"faulting", TripleFault},
}

// command does what cmd/hello does with the command, as far as it can be seen from outside.
func (g *guest) command(line string) (answer string, act func()) {
	name, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	if e, ok := endings[name]; ok {
		return e.answer, func() { g.finish(e.how, 0) }
	}
	switch name {
	case "env":
		return "PATH=/sbin:/usr/sbin:/bin:/usr/bin", nil // what init gives a workload without an environment
	case "attest":
		return g.attestation(arg), nil
	case "exit":
		code, err := strconv.ParseUint(arg, 10, 8)
		if err != nil {
			return "error: exit wants a code from 0 to 255", nil
		}
		return fmt.Sprint("exiting with code ", code), func() { g.finish(Exit, int(code)) }
	case "hang":
		return "hanging", g.hang
	}
	return "error: commands are env, attest [NONCE], exit N, crash, panic, poweroff, reboot, triple-fault, hang", nil
}

func (g *guest) attestation(nonce string) string {
	value, err := hex.DecodeString(nonce)
	if err != nil {
		return fmt.Sprint("error: attest wants a nonce in hex: ", err)
	}
	if g.nsm == nil {
		return "error: open the NSM: open /dev/nsm: no such file or directory"
	}
	asked, err := cbor.Marshal((&request.Attestation{Nonce: value}).Encoded())
	if err != nil {
		return fmt.Sprint("error: ask the NSM: ", err)
	}
	var answer response.Response
	if err := cbor.Unmarshal(g.nsm(asked, maxResponse), &answer); err != nil {
		return fmt.Sprint("error: ask the NSM: ", err)
	}
	if answer.Error != "" {
		return fmt.Sprint("error: the NSM answers ", answer.Error)
	}
	if answer.Attestation == nil {
		return "error: the NSM answers something else"
	}
	return base64.StdEncoding.EncodeToString(answer.Attestation.Document)
}

// maxResponse is the room that Linux's driver gives the NSM, in bytes: NSM_RESPONSE_MAX_SIZE of drivers/misc/nsm.c.
const maxResponse = 0x3000
