// Command nesim simulates AWS Nitro Enclaves on a machine that has none: it runs Enclave Image Files as QEMU
// microvms behind a software model of the Nitro Enclaves PCI device, with the commands of nitro-cli.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nesim/nesim/sim/errcode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := execute(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case interrupted:
		fmt.Fprintln(os.Stderr, "nesim: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, complaint(err))
		os.Exit(exitCode(err))
	}
}

// complaint is the line that reports an error, with nitro-cli's code for it.
func complaint(err error) string {
	if code := errcode.Of(err); code != 0 {
		return fmt.Sprintf("nesim: [%v] %s", code, oneLine(err))
	}
	return "nesim: " + oneLine(err)
}
