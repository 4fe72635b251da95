// Command nesim simulates AWS Nitro Enclaves on a machine that has none: it runs Enclave Image Files as QEMU
// microvms behind a software model of the Nitro Enclaves PCI device, with the commands of nitro-cli.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := root().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case interrupted:
		fmt.Fprintln(os.Stderr, "nesim: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "nesim:", oneLine(err))
		os.Exit(1)
	}
}
