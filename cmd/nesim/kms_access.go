package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/nesim/nesim/attest/kms"
)

// maxAccessKeys bounds a file of access keys in bytes.
const maxAccessKeys = 64 << 10

// readAccessKeys reads the values of --access-key: ID:SECRET, or @FILE with one a line.
func readAccessKeys(values []string) (keys []kms.AccessKey, err error) {
	for _, value := range values {
		path, isFile := strings.CutPrefix(value, "@")
		if !isFile {
			key, err := kms.ParseAccessKey(value)
			if err != nil {
				return nil, fmt.Errorf("--access-key: %w", err)
			}
			keys = append(keys, key)
			continue
		}
		more, err := readAccessKeyFile(path)
		if err != nil {
			return nil, fmt.Errorf("--access-key @%s: %w", path, err)
		}
		keys = append(keys, more...)
	}
	seen := map[string]bool{}
	for _, key := range keys {
		if seen[key.ID] {
			return nil, fmt.Errorf("--access-key: the ID %s is given twice", key.ID)
		}
		seen[key.ID] = true
	}
	return keys, nil
}

func readAccessKeyFile(path string) (keys []kms.AccessKey, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others can read it: chmod 600 %s", path)
	}
	lines := bufio.NewScanner(io.LimitReader(f, maxAccessKeys))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := kms.ParseAccessKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
	}
	if lines.Err() == nil && len(keys) == 0 {
		return nil, errors.New("the file has no access key")
	}
	return keys, lines.Err()
}

// names are those by which clients reach the service: of --host, and of --listen.
func (f *kmsFlags) names() (names []string, err error) {
	for _, name := range f.hosts {
		_, notIP := netip.ParseAddr(name)
		if name == "" || notIP != nil && strings.ContainsAny(name, ":/ ") {
			return nil, fmt.Errorf("--host %q: want a host name or an IP address, without a port", name)
		}
		names = append(names, strings.ToLower(name))
	}
	if host, _, err := net.SplitHostPort(f.listen); err == nil && host != "" && host != "unix" && host != "vsock" {
		if _, err := netip.ParseAddr(host); err != nil {
			names = append(names, strings.ToLower(host))
		}
	}
	return names, nil
}

// warn says who can use the keys without credentials.
func (f *kmsFlags) warn(w io.Writer) {
	if len(f.config.AccessKeys) > 0 {
		return
	}
	var who []string
	host, _, err := net.SplitHostPort(f.listen)
	ip, _ := netip.ParseAddr(host)
	switch {
	case strings.HasPrefix(f.listen, "unix:"):
	case strings.HasPrefix(f.listen, "vsock:"):
		who = append(who, "everybody who can reach "+f.listen)
	case err == nil && (host == "localhost" || ip.IsLoopback()):
		who = append(who, "every user of this machine")
	default:
		who = append(who, "everybody who can reach "+f.listen)
	}
	if f.hasVsock {
		who = append(who, "every program in an enclave")
	}
	if len(who) > 0 {
		fmt.Fprintf(w, "nesim: %s can administer and use all keys without credentials: give --access-key ID:SECRET to check signatures\n",
			strings.Join(who, " and "))
	}
}
