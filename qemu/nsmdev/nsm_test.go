package nsmdev

import (
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/hf/nsm/request"
	"github.com/hf/nsm/response"
	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/nsm"
	"github.com/nesim/nesim/attest/pki"
)

func TestAnEnclaveGetsItsDocumentThroughTheQueue(t *testing.T) {
	a, err := pki.NewAuthority(time.Now())
	require.NoError(t, err)
	instance, err := pki.NewInstance(a, pki.Profile{})
	require.NoError(t, err)
	g := boot(t, nsm.New(nsm.Config{Enclave: instance.Enclave(7)}).Respond)
	ask := func(r request.Request, room int) (answer response.Response) {
		b, err := cbor.Marshal(r.Encoded())
		require.NoError(t, err)
		g.ask(0, string(b))
		g.room(1, room)
		g.ring.Kick()
		require.Empty(t, g.used(0))
		require.NoError(t, cbor.Unmarshal([]byte(g.used(1)), &answer))
		return answer
	}
	require.Len(t, ask(&request.GetRandom{}, 0x3000).GetRandom.Random, 256)
	d, err := attest.Verify(ask(&request.Attestation{Nonce: []byte("nonce")}, 0x3000).Attestation.Document, attest.Expect{
		Roots: []attest.Fingerprint{attest.FingerprintOf(a.Root())}, Nonce: []byte("nonce"),
	})
	require.NoError(t, err)
	require.Equal(t, instance.ID()+"-enc0000000000000007", d.ModuleID)
	require.Equal(t, response.ErrorCode(nsm.BufferTooSmall), ask(&request.Attestation{}, 100).Error)
}
