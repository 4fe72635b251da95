package eif

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDescribeTellsWhatNitroCLITells(t *testing.T) {
	raw, err := os.ReadFile("testdata/p384.eif")
	require.NoError(t, err)
	described, err := Describe(t.Context(), bytes.NewReader(raw), int64(len(raw)))
	require.NotNil(t, described, err)
	require.True(t, described.IsSigned)
	require.True(t, described.CheckCRC)
	require.True(t, *described.SignatureCheck)
	require.Contains(t, described.Certificate.Algorithm, "ecdsa-with-SHA")
	require.Regexp(t, `^[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d \d{4} GMT$`, described.Certificate.NotAfter)
	require.Regexp(t, `^([0-9A-F]{2}:)+[0-9A-F]{2}$`, described.Certificate.Signature)
}

func TestDescribeTellsOfADamagedImageTooAndSaysSo(t *testing.T) {
	raw, err := os.ReadFile("testdata/two.eif")
	require.NoError(t, err)
	raw[HeaderSize+SectionHeaderSize] ^= 1
	described, err := Describe(t.Context(), bytes.NewReader(raw), int64(len(raw)))
	require.ErrorIs(t, err, ErrCRC)
	require.NotNil(t, described)
	require.False(t, described.CheckCRC)
	require.False(t, described.IsSigned)
}

func TestCustomMetadataStandsBesideTheFixedKeys(t *testing.T) {
	m := MetadataInfo{BuildTool: "tool"}
	require.NoError(t, decode(json.RawMessage(`{"Zeta":1e2,"Alpha":true}`), &m.Custom))
	require.NoError(t, decode(json.RawMessage(`{"b":1.50,"a":null}`), &m.DockerInfo))
	got, err := json.Marshal(m)
	require.NoError(t, err)
	require.Equal(t, `{"BuildTime":"","BuildTool":"tool","BuildToolVersion":"","OperatingSystem":"","KernelVersion":"",`+
		`"DockerInfo":{"a":null,"b":1.50},"Alpha":true,"Zeta":1e2}`, string(got))
}

func TestADescriptionSurvivesJSON(t *testing.T) {
	b := golden(t, "four.eif")
	d, err := Describe(t.Context(), bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	d.Metadata.Custom = map[string]any{"team": "enclaves", "build": json.Number("12345678901234567890")}
	want, err := json.Marshal(d)
	require.NoError(t, err)
	var again Description
	require.NoError(t, json.Unmarshal(want, &again))
	got, err := json.Marshal(again)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
