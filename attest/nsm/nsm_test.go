package nsm_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/hf/nsm/request"
	"github.com/hf/nsm/response"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
	"github.com/nesim/nesim/eif"
)

const (
	instanceID = "i-0123456789abcdef0"
	moduleID   = instanceID + "-enc0198123456789abc"
)

var zeros = make([]byte, 48)

// digest is a measurement of the same byte all over.
func digest(b byte) eif.Digest { return eif.Digest(bytes.Repeat([]byte{b}, 48)) }

// config is an enclave's whose image is signed and whose parent has a role. Its root comes with it.
func config(t testing.TB) (nsm.Config, attest.Fingerprint) {
	a, err := pki.NewAuthority(time.Now())
	require.NoError(t, err)
	instance, err := pki.NewInstance(a, pki.Profile{InstanceID: instanceID})
	require.NoError(t, err)
	pcr8 := digest(8)
	return nsm.Config{
		Enclave:      instance.Enclave(0x0198_1234_5678_9abc),
		Measurements: eif.Measurements{PCR0: digest(10), PCR1: digest(11), PCR2: digest(12), PCR8: &pcr8},
		RoleARN:      nsm.DefaultRoleARN,
	}, attest.FingerprintOf(a.Root())
}

func newNSM(t testing.TB) *nsm.NSM {
	c, _ := config(t)
	return nsm.New(c)
}

// ask sends a request as an enclave with github.com/hf/nsm does, and reads the response
// with that too, and strictly besides.
func ask(t testing.TB, n *nsm.NSM, r request.Request) response.Response {
	t.Helper()
	b, err := cbor.Marshal(r.Encoded())
	require.NoError(t, err)
	return read(t, n.Handle(b))
}

func read(t testing.TB, b []byte) (r response.Response) {
	t.Helper()
	strict, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode()
	require.NoError(t, err)
	var whatever any
	require.NoError(t, strict.Unmarshal(b, &whatever))
	require.NoError(t, cbor.Unmarshal(b, &r))
	return r
}

func failure(code nsm.ErrorCode) response.Response {
	return response.Response{Error: response.ErrorCode(code)}
}

func sha384(parts ...[]byte) []byte {
	sum := sha512.Sum384(bytes.Join(parts, nil))
	return sum[:]
}

func TestAnEnclaveFindsItsImageAndItsParentInThePCRs(t *testing.T) {
	n := newNSM(t)
	for i := range uint16(32) {
		want := zeros
		switch i {
		case 0, 1, 2:
			want = bytes.Repeat([]byte{byte(10 + i)}, 48)
		case 3:
			want = sha384(zeros, []byte(nsm.DefaultRoleARN))
		case 4:
			want = sha384(zeros, []byte(instanceID))
		case 8:
			want = bytes.Repeat([]byte{8}, 48)
		}
		got := ask(t, n, &request.DescribePCR{Index: i}).DescribePCR
		require.Equal(t, &response.DescribePCR{Lock: i < 16, Data: want}, got, "PCR%d", i)
	}
}

func TestInDebugModeTheImageIsNotMeasured(t *testing.T) {
	c, _ := config(t)
	c.Debug = true
	n := nsm.New(c)
	for _, i := range []uint16{0, 1, 2, 8} {
		require.Equal(t, zeros, ask(t, n, &request.DescribePCR{Index: i}).DescribePCR.Data)
	}
	for _, i := range []uint16{3, 4} {
		require.NotEqual(t, zeros, ask(t, n, &request.DescribePCR{Index: i}).DescribePCR.Data)
	}
}

func TestAParentWithoutARoleAndAnImageWithoutASignatureLeaveZeros(t *testing.T) {
	c, _ := config(t)
	c.RoleARN, c.Measurements.PCR8 = "", nil
	n := nsm.New(c)
	require.Equal(t, zeros, ask(t, n, &request.DescribePCR{Index: 3}).DescribePCR.Data)
	require.Equal(t, zeros, ask(t, n, &request.DescribePCR{Index: 8}).DescribePCR.Data)
}

func TestAPCRIsExtendedUntilItIsLocked(t *testing.T) {
	n := newNSM(t)
	once := sha384(zeros, []byte("data"))
	require.Equal(t, once, ask(t, n, &request.ExtendPCR{Index: 16, Data: []byte("data")}).ExtendPCR.Data)
	twice := sha384(once, nil)
	require.Equal(t, twice, ask(t, n, &request.ExtendPCR{Index: 16, Data: []byte{}}).ExtendPCR.Data)
	require.Equal(t, &response.DescribePCR{Data: twice}, ask(t, n, &request.DescribePCR{Index: 16}).DescribePCR)

	require.NotNil(t, ask(t, n, &request.LockPCR{Index: 16}).LockPCR)
	require.Equal(t, failure(nsm.ReadOnlyIndex), ask(t, n, &request.LockPCR{Index: 16}))
	require.Equal(t, failure(nsm.ReadOnlyIndex), ask(t, n, &request.ExtendPCR{Index: 16, Data: []byte("data")}))
	require.Equal(t, &response.DescribePCR{Lock: true, Data: twice}, ask(t, n, &request.DescribePCR{Index: 16}).DescribePCR)
}

func TestPCRsAreLockedAllAtOnce(t *testing.T) {
	n := newNSM(t)
	require.NotNil(t, ask(t, n, &request.LockPCRs{Range: 0}).LockPCRs)
	require.NotNil(t, ask(t, n, &request.LockPCRs{Range: 20}).LockPCRs)
	require.Len(t, ask(t, n, &request.DescribeNSM{}).DescribeNSM.LockedPCRs, 20)
	require.NotNil(t, ask(t, n, &request.LockPCRs{Range: 32}).LockPCRs)
	require.NotNil(t, ask(t, n, &request.LockPCRs{Range: 32}).LockPCRs)
	require.Equal(t, failure(nsm.InvalidIndex), ask(t, n, &request.LockPCRs{Range: 33}))
	require.Len(t, ask(t, n, &request.DescribeNSM{}).DescribeNSM.LockedPCRs, 32)
}

func TestThePCRsOfTheStartAreReadOnlyAndOthersDoNotExist(t *testing.T) {
	n := newNSM(t)
	for i := range uint16(16) {
		require.Equal(t, failure(nsm.ReadOnlyIndex), ask(t, n, &request.ExtendPCR{Index: i, Data: []byte("data")}))
		require.Equal(t, failure(nsm.ReadOnlyIndex), ask(t, n, &request.LockPCR{Index: i}))
	}
	for _, i := range []uint16{32, 256, 65535} {
		require.Equal(t, failure(nsm.InvalidIndex), ask(t, n, &request.DescribePCR{Index: i}))
		require.Equal(t, failure(nsm.InvalidIndex), ask(t, n, &request.ExtendPCR{Index: i, Data: []byte("data")}))
		require.Equal(t, failure(nsm.InvalidIndex), ask(t, n, &request.LockPCR{Index: i}))
	}
}

func TestADocumentVerifies(t *testing.T) {
	c, root := config(t)
	n := nsm.New(c)
	require.NotNil(t, ask(t, n, &request.ExtendPCR{Index: 17, Data: []byte("data")}).ExtendPCR)
	require.NotNil(t, ask(t, n, &request.LockPCR{Index: 17}).LockPCR)
	for _, r := range []request.Attestation{
		{},
		{UserData: []byte("data"), Nonce: []byte("nonce"), PublicKey: []byte("key")},
		{UserData: []byte{}, Nonce: []byte{}, PublicKey: []byte{0}},
		{UserData: make([]byte, 1024), Nonce: make([]byte, 1024), PublicKey: make([]byte, 1024)},
		{Nonce: make([]byte, 1025)},
		{UserData: make([]byte, 4000)},
	} {
		d, err := attest.Verify(ask(t, n, &r).Attestation.Document, attest.Expect{
			Roots: []attest.Fingerprint{root}, Nonce: r.Nonce,
			PCRs: map[uint64][]byte{0: bytes.Repeat([]byte{10}, 48), 17: sha384(zeros, []byte("data"))},
		})
		require.NoError(t, err)
		require.Equal(t, moduleID, d.ModuleID)
		require.Len(t, d.PCRs, 17)
		require.Equal(t, [][]byte{r.UserData, r.Nonce, r.PublicKey}, [][]byte{d.UserData, d.Nonce, d.PublicKey})
		require.WithinDuration(t, time.Now(), time.UnixMilli(int64(d.Timestamp)), time.Hour)
	}
}

func TestADocumentHoldsWhatARequestCarries(t *testing.T) {
	c, root := config(t)
	n := nsm.New(c)
	for _, field := range []string{"user_data", "nonce"} {
		head := x("a1 'Attestation' a1 '" + field + "' 590000")
		size := nsm.MaxRequest - len(head)
		head[len(head)-2], head[len(head)-1] = byte(size>>8), byte(size)
		largest := append(head, make([]byte, size)...)
		signed := read(t, n.Handle(largest)).Attestation
		require.NotNil(t, signed, field)
		d, err := attest.Verify(signed.Document, attest.Expect{Roots: []attest.Fingerprint{root}})
		require.NoError(t, err)
		require.Equal(t, size, len(d.UserData)+len(d.Nonce))
		require.Equal(t, failure(nsm.InputTooLarge), read(t, n.Handle(append(largest, 0))), field)
	}

	_, err := n.Attestation(make([]byte, 2000), make([]byte, 1100), make([]byte, 900))
	require.NoError(t, err)
	_, err = n.Attestation(make([]byte, 2000), make([]byte, 1100), make([]byte, 1000))
	require.ErrorIs(t, err, nsm.InputTooLarge, "together")
	require.Equal(t, failure(nsm.InputTooLarge), ask(t, n, &request.Attestation{PublicKey: make([]byte, 1025)}))
	require.Equal(t, failure(nsm.InvalidArgument), ask(t, n, &request.Attestation{PublicKey: []byte{}}))
}

func TestRandomBytesDiffer(t *testing.T) {
	n := newNSM(t)
	a, b := ask(t, n, &request.GetRandom{}).GetRandom.Random, ask(t, n, &request.GetRandom{}).GetRandom.Random
	require.Len(t, a, 256)
	require.Len(t, b, 256)
	require.NotEqual(t, a, b)
}

// x writes hex with text in it: 'a' stands for the text string a.
func x(s string) []byte {
	var b []byte
	for i, part := range strings.Split(strings.ReplaceAll(s, " ", ""), "'") {
		if i%2 == 1 {
			b = append(append(b, 0x60|byte(len(part))), part...)
			continue
		}
		h, _ := hex.DecodeString(part)
		b = append(b, h...)
	}
	return b
}

func TestResponsesAreThoseOfTheAPIByteForByte(t *testing.T) {
	n := newNSM(t)
	value := hex.EncodeToString(sha384(zeros, []byte{7}))
	for _, c := range []struct{ request, response string }{
		{"a1 'DescribePCR' a1 'index' 00", "a1 'DescribePCR' a2 'lock' f5 'data' 5830" + strings.Repeat("0a", 48)},
		{"a1 'DescribePCR' a1 'index' 181f", "a1 'DescribePCR' a2 'lock' f4 'data' 5830" + strings.Repeat("00", 48)},
		{"a1 'ExtendPCR' a2 'index' 181f 'data' 4107", "a1 'ExtendPCR' a1 'data' 5830" + value},
		{"a1 'LockPCR' a1 'index' 181f", "'LockPCR'"},
		{"a1 'LockPCRs' a1 'range' 11", "'LockPCRs'"},
		{"a1 'LockPCR' a1 'index' 11", "'LockPCR'"},
		{"'DescribeNSM'", "a1 'DescribeNSM' a7 'version_major' 01 'version_minor' 00 'version_patch' 00 'module_id' 7827" +
			hex.EncodeToString([]byte(moduleID)) +
			" 'max_pcrs' 1820 'locked_pcrs' 93 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 181f 'digest' 'SHA384'"},
		{"a1 'LockPCR' a1 'index' 11", "a1 'Error' 'ReadOnlyIndex'"},
	} {
		require.Equal(t, x(c.response), n.Handle(x(c.request)), c.request)
	}
	// What the kernel's hwrng driver compares.
	require.Equal(t, x("a1 'GetRandom' a1 'random' 590100"), n.Handle(x("'GetRandom'"))[:22])
}

func TestRequestsMayBeEncodedInOtherWays(t *testing.T) {
	for _, r := range []string{
		"bf 'ExtendPCR' bf 'index' 190010 'data' 4107 ff ff",  // indefinite lengths, long numbers
		"a1 'ExtendPCR' a2 'data' 4107 'index' 10",            // another order
		"a1 'ExtendPCR' a3 'index' 10 'x' 00 'data' 5f4107ff", // an unknown field, chunks
		"a1 'ExtendPCR' a2 'index' 10 'data' 6107",            // text
		"a1 'ExtendPCR' a2 'index' 10 'data' 8107",            // an array of numbers
	} {
		require.Equal(t, sha384(zeros, []byte{7}), read(t, newNSM(t).Handle(x(r))).ExtendPCR.Data, r)
	}
	n := newNSM(t)
	for _, r := range []string{
		"a1 'Attestation' a0", "a1 'Attestation' a1 'nonce' f6", "a1 'Attestation' a3 'nonce' 40 'user_data' f6 'public_key' 4100",
	} {
		require.NotNil(t, read(t, n.Handle(x(r))).Attestation, r)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	n := newNSM(t)
	for code, requests := range map[nsm.ErrorCode][]string{
		nsm.InvalidOperation: {
			"", "00", "f6", "80", "a0", "ff", "40", "a1", "'describensm'", "'LockPCR'", "'Attestation'", "'GetRandom' 00",
			"a1 'GetRandom' a0", "a1 'DescribeNSM' f6", "a1 'Reboot' a0", "a1 00 a0", "a2 'LockPCR' a0 'LockPCRs' a0",
			"a2 'LockPCR' a1 'index' 10 'LockPCR' a1 'index' 11", "c1 'GetRandom'", "9bffffffffffffffff", "7bffffffffffffffff",
			"a1 'LockPCR' a1 'index' 10 00", "a1 'LockPCR' a1 'index'", "7f ff", "a1 'ExtendPCR' 8181818181818100",
		},
		nsm.InvalidArgument: {
			"a1 'LockPCR' a0", "a1 'LockPCR' f6", "a1 'LockPCR' 10", "a1 'LockPCR' 81 10", "a1 'LockPCR' a1 'Index' 10",
			"a1 'LockPCR' a1 'index' f6", "a1 'LockPCR' a1 'index' 20", "a1 'LockPCR' a1 'index' 1a00010000",
			"a1 'LockPCR' a1 'index' fb4030000000000000", "a1 'LockPCR' a1 'index' 'x'", "a1 'LockPCR' a2 'index' 10 'index' 11",
			"a1 'LockPCRs' a1 'index' 10", "a1 'DescribePCR' a1 'range' 10", "a1 'ExtendPCR' a1 'index' 10",
			"a1 'ExtendPCR' a1 'data' 4107", "a1 'ExtendPCR' a2 'index' 10 'data' f6", "a1 'ExtendPCR' a2 'index' 10 'data' 07",
			"a1 'ExtendPCR' a2 'index' 10 'data' 81190100", "a1 'ExtendPCR' a2 'index' 10 'data' a0",
			"a1 'Attestation' f6", "a1 'Attestation' a1 'nonce' 01", "a1 'Attestation' a1 'user_data' a0",
		},
	} {
		for _, r := range requests {
			require.Equal(t, failure(code), read(t, n.Handle(x(r))), r)
		}
	}
	require.Len(t, n.DescribeNSM().LockedPCRs, 16, "nothing was done")
}

func TestARequestIsOfLimitedSize(t *testing.T) {
	n := newNSM(t)
	head := x("a1 'ExtendPCR' a2 'index' 10 'data' 590000")
	fill := func(size int) []byte {
		r := append(bytes.Clone(head), make([]byte, size-len(head))...)
		r[len(head)-2], r[len(head)-1] = byte((size-len(head))>>8), byte(size-len(head))
		return r
	}
	require.NotNil(t, read(t, n.Handle(fill(nsm.MaxRequest))).ExtendPCR)
	require.Equal(t, failure(nsm.InputTooLarge), read(t, n.Handle(fill(nsm.MaxRequest+1))))
}

func TestAResponseIsOfLimitedSize(t *testing.T) {
	n := newNSM(t)
	require.Equal(t, failure(nsm.BufferTooSmall), read(t, n.Respond(x("'GetRandom'"), 100)))
	require.Nil(t, n.Respond(x("'GetRandom'"), 10))
	require.Nil(t, n.Respond(x("'GetRandom'"), 0))
	lock := x("a1 'LockPCR' a1 'index' 10")
	require.Empty(t, n.Respond(lock, 7))
	require.Equal(t, failure(nsm.ReadOnlyIndex), read(t, n.Handle(lock)), "it was done")
}

// broken is an enclave whose certificates cannot be issued.
type broken struct{ nsm.Enclave }

var errBroken = errors.New("no certificates today")

func (broken) Credential() (*pki.Credential, error) { return nil, errBroken }

func TestWithoutACertificateThereIsAnInternalError(t *testing.T) {
	c, _ := config(t)
	c.Enclave = broken{c.Enclave}
	n := nsm.New(c)
	require.Equal(t, failure(nsm.InternalError), ask(t, n, &request.Attestation{}))
	_, err := n.Attestation(nil, nil, nil)
	require.ErrorIs(t, err, errBroken)
	require.ErrorIs(t, err, nsm.InternalError)
}

func TestManyAskAtOnce(t *testing.T) {
	n := newNSM(t)
	var wg sync.WaitGroup
	for g := range uint16(8) {
		wg.Go(func() {
			for range 20 {
				n.ExtendPCR(16+g, []byte{1})
				n.DescribeNSM()
				n.LockPCR(24 + g)
				n.DescribePCR(g)
			}
			signed, err := n.Attestation(nil, nil, nil)
			if err == nil {
				_, err = attest.Decode(signed)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Len(t, n.DescribeNSM().LockedPCRs, 24)
}

func FuzzHandle(f *testing.F) {
	for _, r := range []request.Request{
		&request.DescribeNSM{}, &request.DescribePCR{Index: 3}, &request.ExtendPCR{Index: 20, Data: []byte("data")},
		&request.LockPCR{Index: 16}, &request.LockPCRs{Range: 32}, &request.GetRandom{},
		&request.Attestation{UserData: []byte("data"), Nonce: []byte{}, PublicKey: make([]byte, 1025)},
	} {
		b, err := cbor.Marshal(r.Encoded())
		require.NoError(f, err)
		f.Add(b, 0x3000)
	}
	f.Add(x("bf 'ExtendPCR' bf 'index' 190010 'data' 8107 ff ff"), 100)
	c, _ := config(f)
	c.Enclave = broken{c.Enclave} // signing would drown all else
	f.Fuzz(func(t *testing.T, request []byte, room int) {
		n := nsm.New(c)
		before, _ := n.DescribePCR(0)
		read(t, n.Handle(request))
		require.LessOrEqual(t, len(n.Respond(request, room)), max(room, 0))
		after, _ := n.DescribePCR(0)
		require.Equal(t, before, after)
		require.GreaterOrEqual(t, len(n.DescribeNSM().LockedPCRs), 16)
	})
}
