package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/mdlayher/vsock"
)

// vsockCommand joins standard input and output to a vsock port: `vsock dial CID PORT` or `vsock listen PORT`, which
// takes one connection.
func vsockCommand(args []string) error {
	var numbers []uint32
	for _, arg := range args[min(1, len(args)):] {
		n, err := strconv.ParseUint(arg, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a number from 0 to 4294967295", arg)
		}
		numbers = append(numbers, uint32(n))
	}
	var conn *vsock.Conn
	var err error
	switch {
	case len(numbers) == 2 && args[0] == "dial":
		conn, err = vsock.Dial(numbers[0], numbers[1], nil)
	case len(numbers) == 1 && args[0] == "listen":
		conn, err = acceptOne(numbers[0])
	default:
		return errors.New("usage: vsock dial CID PORT | vsock listen PORT")
	}
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { // ends with the input, or with the process
		if _, err := io.Copy(conn, os.Stdin); err != nil {
			failed <- fmt.Errorf("write: %w", err)
			return
		}
		_ = conn.CloseWrite()
	}()
	if _, err = io.Copy(os.Stdout, conn); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func acceptOne(number uint32) (*vsock.Conn, error) {
	listener, err := vsock.Listen(number, nil)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	conn, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn.(*vsock.Conn), nil
}
