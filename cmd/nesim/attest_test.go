package main

import (
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	other "github.com/alokmenghrajani/go-nitro-enclave-attestation-document"
	"github.com/hf/nitrite"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/eif"
	"github.com/nesim/nesim/qemu/setup"
	"github.com/nesim/nesim/sim/instance"
)

const zeroPCR = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"

// root reads the user's root as somebody would who verifies elsewhere.
func (u *user) root() *x509.Certificate {
	u.Helper()
	block, rest := pem.Decode([]byte(u.must("attest", "root")))
	require.NotNil(u, block)
	require.Empty(u, rest)
	require.Equal(u, string(block.Bytes), u.must("attest", "root", "--format", "der"))
	c, err := x509.ParseCertificate(block.Bytes)
	require.NoError(u, err)
	return c
}

// document gets an attestation document of the hello enclave's into a file.
func (u *user) document(cid, nonce string) (file string) {
	u.Helper()
	text := u.ask(cid, "attest "+nonce)
	require.NotContains(u, text, "error")
	file = filepath.Join(u.dir, "document-"+nonce)
	require.NoError(u, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// verified is what `attest verify` prints.
type verified struct {
	ModuleID string            `json:"module_id"`
	PCRs     map[string]string `json:"pcrs"`
	Nonce    []byte            `json:"nonce"`
}

func (u *user) verify(args ...string) (v verified) {
	u.Helper()
	require.NoError(u, json.Unmarshal([]byte(u.must(append([]string{"attest", "verify"}, args...)...)), &v))
	return v
}

func TestADocumentFromAnEnclaveVerifies(t *testing.T) {
	u := newUser(t)
	info := u.runProduction("--enclave-cid", "16")
	var image eif.Description
	require.NoError(t, json.Unmarshal([]byte(u.must("describe-eif", "--eif-path", u.hello())), &image))
	pcr0 := image.Measurements.PCR0.String()

	file := u.document("16", "00ff")
	v := u.verify(file, "--nonce", "00ff", "--pcr0", pcr0, "--pcr1", image.Measurements.PCR1.String(), "--pcr2", image.Measurements.PCR2.String())
	require.Equal(t, moduleID(info.ID), v.ModuleID)
	require.Equal(t, []byte{0, 0xff}, v.Nonce)
	require.NotEqual(t, zeroPCR, v.PCRs["3"], "of the parent's role")
	require.NotEqual(t, zeroPCR, v.PCRs["4"], "of the parent's ID")

	t.Run("by others, who are given the root alone", func(t *testing.T) {
		root := u.root()
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		signed, err := base64.StdEncoding.DecodeString(string(text))
		require.NoError(t, err)
		roots := x509.NewCertPool()
		roots.AddCert(root)
		theirs, err := nitrite.Verify(signed, nitrite.VerifyOptions{Roots: roots, CurrentTime: time.Now()})
		require.NoError(t, err)
		require.True(t, theirs.SignatureOK)
		require.Equal(t, pcr0, hex.EncodeToString(theirs.Document.PCRs[0]))
		again, err := other.AuthenticateDocument(signed, *root, true)
		require.NoError(t, err)
		require.Equal(t, pcr0, hex.EncodeToString(again.PCRs[0]))
	})
	t.Run("not with another expectation", func(t *testing.T) {
		require.Contains(t, u.refused("attest", "verify", file, "--nonce", "00fe"), "nonce")
		require.Contains(t, u.refused("attest", "verify", file, "--pcr0", zeroPCR), "PCR")
		require.Contains(t, u.refused("attest", "verify", file, "--at", "2040-01-01T00:00:00Z"), "expired")
		require.Contains(t, u.refused("attest", "verify", file, "--root", "none.pem"), "none.pem")
	})
	t.Run("and one without an enclave has the same PCRs", func(t *testing.T) {
		made := filepath.Join(u.dir, "made")
		u.must("attest", "document", "--eif", u.hello(), "--nonce", "01", "--output", made)
		require.Equal(t, v.PCRs, u.verify(made, "--nonce", "01").PCRs)
	})
}

func TestInDebugModeTheImagesPCRsAreZero(t *testing.T) {
	u := newUser(t)
	u.runHello("--enclave-cid", "16")
	v := u.verify(u.document("16", "01"))
	for _, pcr := range []string{"0", "1", "2", "8"} {
		require.Equal(t, zeroPCR, v.PCRs[pcr])
	}
	require.NotEqual(t, zeroPCR, v.PCRs["4"])
	u.must("terminate-enclave", "--all")

	u.runHello("--enclave-cid", "17", "--no-nsm")
	require.Contains(t, u.ask("17", "attest 01"), "error: open the NSM")
}

func TestTheEnclavesLibraryIsServedByItsKernelsDriver(t *testing.T) {
	u := newUser(t)
	image := u.build(buildGuest(t, "testdata/nsmguest"))
	info := u.runImage(image)
	text := u.waitConsole(info.ID, "nsm: done")
	for _, line := range []string{
		"nsm: module " + moduleID(info.ID) + " SHA384 32 PCRs, locked [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]",
		"nsm: PCR0 " + zeroPCR, // debug mode
		"nsm: PCR16 " + extended("hello"),
		"nsm: refused *request.ExtendPCR ReadOnlyIndex <nil>",
		"nsm: refused *request.LockPCR ReadOnlyIndex <nil>",
		"nsm: refused *request.DescribePCR InvalidIndex <nil>",
		"nsm: refused *request.LockPCRs InvalidIndex <nil>",
		"nsm: refused *request.Attestation InputTooLarge <nil>",                                 // a public key of 1025 bytes
		"nsm: refused *request.Attestation  ioctl failed on device with errno message too long", // more than a request: the driver's
		"nsm: random 256 256 differ true",
		"nsm: hwrng nsm-hwrng <nil>",
	} {
		require.Contains(t, text, line)
	}
	document := regexp.MustCompile(`nsm: document (\S+)`).FindStringSubmatch(text)
	require.NotNil(t, document)
	file := filepath.Join(u.dir, "document")
	require.NoError(t, os.WriteFile(file, []byte(document[1]), 0o600))
	v := u.verify(file)
	require.Len(t, v.Nonce, 1025)
	require.Equal(t, extended("hello"), v.PCRs["16"])
	require.Equal(t, zeroPCR, v.PCRs["17"], "locked, and so in the document")
	require.NotContains(t, v.PCRs, "18")
	t.Log(regexp.MustCompile(`DescribePCR takes \S+`).FindString(text))
}

// moduleID is the ID of an enclave's NSM: the enclave's own, with the slot's uid in all its 16 digits.
func moduleID(enclaveID string) string {
	instance, uid, _ := strings.Cut(enclaveID, "-enc")
	return fmt.Sprintf("%s-enc%016s", instance, uid)
}

// extended is a PCR that was extended once.
func extended(data string) string {
	digest := sha512.Sum384(append(make([]byte, sha512.Size384), data...))
	return hex.EncodeToString(digest[:])
}

// runProduction runs the hello enclave without debug mode.
func (u *user) runProduction(more ...string) instance.RunInfo {
	u.Helper()
	var info instance.RunInfo
	args := append([]string{"run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256"}, more...)
	require.NoError(u, json.Unmarshal([]byte(u.must(args...)), &info))
	return info
}

// runImage runs an image in debug mode.
func (u *user) runImage(image string) (info instance.RunInfo) {
	u.Helper()
	require.NoError(u, json.Unmarshal([]byte(u.must("run-enclave", "--eif-path", image, "--cpu-count", "2", "--memory", "256", "--debug-mode")), &info))
	return info
}

// waitConsole reads an enclave's console until a text has come, and returns what it has read.
func (u *user) waitConsole(id, text string) (read string) {
	u.Helper()
	for end := time.Now().Add(limit); !strings.Contains(read, text); {
		require.False(u, time.Now().After(end), "the console does not say %q:\n%s", text, read)
		read = u.must("console", "--enclave-id", id, "--disconnect-timeout", strconv.Itoa(1))
	}
	return read
}

// buildGuest builds a program for enclaves and returns a folder to pack.
func buildGuest(t *testing.T, dir string) (rootfs string) {
	t.Helper()
	rootfs = t.TempDir()
	name := filepath.Base(dir)
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(rootfs, name), "./"+dir)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(rootfs, "cmd"), []byte("/"+name+"\n"), 0o644))
	return rootfs
}

// build packs a folder.
func (u *user) build(rootfs string) (image string) {
	u.Helper()
	image = filepath.Join(u.dir, "guest.eif")
	u.must("build-enclave", "--rootfs", rootfs, "--output-file", image)
	return image
}

func TestAQEMUWithoutTheNSMsDeviceRunsEnclavesWithoutNSM(t *testing.T) {
	program, err := setup.FindQEMU(t.Context())
	require.NoError(t, err)
	without := filepath.Join(t.TempDir(), "qemu")
	script := "#!/bin/sh\ncase \"$*\" in\n*help*) " + program.Path + " \"$@\" | grep -v " + setup.NSMDevice + " ;;\n*) exec " + program.Path + " \"$@\" ;;\nesac\n"
	require.NoError(t, os.WriteFile(without, []byte(script), 0o755))
	t.Setenv("NESIM_QEMU", without)
	u := newUser(t)
	why := u.refused("run-enclave", "--eif-path", u.hello(), "--cpu-count", "2", "--memory", "256")
	require.Contains(t, why, setup.NSMDevice)
	require.Contains(t, why, setup.MinVersion.String())
	require.Contains(t, why, "--no-nsm")
	require.Empty(t, u.enclaves())
	u.runHello("--no-nsm")
}
