package main

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// made is a document made without an enclave, and the file that it is in.
func (u *user) made(more ...string) (signed []byte, file string) {
	u.Helper()
	file = filepath.Join(u.dir, "made")
	u.must(append([]string{"attest", "document", "--eif", u.hello(), "--output", file}, more...)...)
	signed, err := os.ReadFile(file)
	require.NoError(u, err)
	return signed, file
}

func TestDocumentsAreReadInEveryEncodingThatPeopleUse(t *testing.T) {
	u := newUser(t)
	signed, file := u.made("--nonce", "fbff")
	want := u.must("attest", "show", file)
	lines := func(text string) string { return strings.Join(strings.SplitAfter(text, "4"), "\r\n") + "\n" }
	for _, test := range []struct{ text, named string }{
		{base64.StdEncoding.EncodeToString(signed), ""},
		{lines(base64.RawStdEncoding.EncodeToString(signed)), ""},
		{base64.URLEncoding.EncodeToString(signed), "base64url"},
		{lines(base64.RawURLEncoding.EncodeToString(signed)), "base64url"},
		{hex.EncodeToString(signed), "hex"},
		{lines(strings.ToUpper(hex.EncodeToString(signed))), "hex"},
		{"0x" + hex.EncodeToString(append([]byte{0xd2}, signed...)), "hex"},
	} {
		for _, command := range []string{"show", "verify"} {
			got, told, err := u.run(test.text, "attest", command, "-")
			require.NoError(t, err, told)
			require.Equal(t, want, got)
			if test.named == "" {
				require.Empty(t, told)
			} else {
				require.Equal(t, "nesim: - is encoded as "+test.named+"\n", told)
			}
		}
	}
}

func TestWhatIsNoDocumentInAnyEncodingIsRefused(t *testing.T) {
	u := newUser(t)
	for text, says := range map[string]string{
		"":                         "is empty",
		" \n":                      "is empty",
		"hello":                    "base64, base64url or hex",
		"0x":                       "base64, base64url or hex",
		"84zz":                     "base64, base64url or hex",
		"AAAA":                     "base64, base64url or hex",
		"\x00\x01":                 "not a COSE_Sign1",
		"84":                       "not a COSE_Sign1",
		"\x84":                     "not a COSE_Sign1",
		strings.Repeat("8", 1<<20): "longer than an attestation document can be",
	} {
		file := filepath.Join(u.dir, "text")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		for _, command := range []string{"show", "verify"} {
			require.Contains(t, u.refused("attest", command, file), says, "%.10q", text)
		}
	}
}

func FuzzDecodeDocument(f *testing.F) {
	for _, seed := range []string{"\x84\x00", "hAA=", "0x8400", "d284 00\n", "-_", "", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		signed, encoding, err := decodeDocument(content)
		if err != nil {
			require.Nil(t, signed)
			return
		}
		require.NotEmpty(t, signed)
		if encoding != "" {
			require.True(t, looksSigned(signed))
		}
	})
}

func TestAParentWithoutARoleIsAttestedAsOne(t *testing.T) {
	u := newUser(t)
	_, file := u.made("--role-arn", "")
	require.Equal(t, zeroPCR, u.verify(file).PCRs["3"])
	_, file = u.made("--role-arn", "arn:aws:iam::123456789012:role/other")
	require.Equal(t, extended("arn:aws:iam::123456789012:role/other"), u.verify(file).PCRs["3"])

	u.serve("--role-arn", "")
	u.runProduction("--enclave-cid", "16")
	v := u.verify(u.document("16", "01"))
	require.Equal(t, zeroPCR, v.PCRs["3"])
	require.NotEqual(t, zeroPCR, v.PCRs["0"])
}

func TestATerminalSaysThatADebugDocumentDoesNotAttestItsImage(t *testing.T) {
	const hint = "debug mode: the image is not attested"
	u := newUser(t)
	_, file := u.made("--debug-mode")
	for _, command := range []string{"verify", "show"} {
		require.Contains(t, u.onTerminal([]string{"NO_COLOR=1"}, "attest", command, file), hint)
		require.NotContains(t, u.onTerminal(nil, "attest", command, file, "--json"), hint)
		require.NotContains(t, u.must("attest", command, file), hint)
	}
	_, file = u.made()
	require.NotContains(t, u.onTerminal(nil, "attest", "verify", file), hint)
}

func TestATerminalSaysWhatAnEnclaveInDebugModeAttests(t *testing.T) {
	const hint = "attest PCR0, PCR1 and PCR2 as zeros"
	u := newUser(t)
	u.runProduction("--enclave-cid", "16")
	require.NotContains(t, u.onTerminal(nil, "describe-enclaves"), hint)
	info := u.runHello("--enclave-cid", "17")
	require.Contains(t, u.onTerminal(nil, "describe-enclaves"), hint)

	text, told, err := u.run("", "describe-enclaves")
	require.NoError(t, err)
	require.Empty(t, told)
	require.Contains(t, text, info.ID)
	for _, d := range u.enclaves() {
		require.NotEqual(t, zeroPCR, d.Measurements.PCR0.String(), "the image's, as nitro-cli shows them")
	}
}
