// Program guest is what the conformance tests run inside a primary VM, with the Linux kernel's NE driver.
//
//	guest agent                  runs commands that come on standard input (see package conformance's agent.go)
//	guest tty COMMAND ARGS...    runs a command on a terminal
//	guest table IMAGE            prints the rows of conformance.Table, as JSON
//	guest run IMAGE CID...       runs enclaves at once, answers their heartbeats, tells their ends
//	guest memory IMAGE CID       checks what becomes of donated memory
//	guest storm IMAGE N          runs N enclaves that end at once, and counts the hang-ups
//	guest latency N              measures how long a command takes
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/nesim/nesim/sim/conformance"
)

func main() {
	args := append(os.Args[1:], "", "", "")
	switch args[0] {
	case "agent":
		conformance.ServeAgent(os.Stdin, os.Stdout)
	case "tty":
		onTerminal(os.Args[2:])
	case "ioctl":
		ioctlElsewhere(args[1], args[2])
	case "table":
		check(json.NewEncoder(os.Stdout).Encode(conformance.Table(newWorld(), read(args[1]))))
	case "run":
		run(read(args[1]), os.Args[3:])
	case "memory":
		memory(read(args[1]), number(args[2]))
	case "storm":
		storm(read(args[1]), int(number(args[2])))
	case "latency":
		latency(int(number(args[1])))
	default:
		check(fmt.Errorf("no command %q", args[0]))
	}
}

// check ends the program where there is an error.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func checkThat(ok bool, format string, args ...any) {
	if !ok {
		check(fmt.Errorf(format, args...))
	}
}

func read(path string) []byte {
	data, err := os.ReadFile(path)
	check(err)
	return data
}

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	check(err)
	return n
}
