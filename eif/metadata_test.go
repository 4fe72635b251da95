package eif

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBuildTimesLookLikeChronos(t *testing.T) {
	at := time.Date(2024, 2, 29, 14, 34, 56, 0, time.FixedZone("", 2*3600))
	for ns, want := range map[int]string{
		0:         "2024-02-29T12:34:56+00:00",
		789e6:     "2024-02-29T12:34:56.789+00:00",
		100e6:     "2024-02-29T12:34:56.100+00:00",
		789012e3:  "2024-02-29T12:34:56.789012+00:00",
		789012345: "2024-02-29T12:34:56.789012345+00:00",
		5:         "2024-02-29T12:34:56.000000005+00:00",
	} {
		require.Equal(t, want, FormatBuildTime(at.Add(time.Duration(ns))))
	}
}

func TestBadCustomMetadataIsRefused(t *testing.T) {
	for in, want := range map[string]string{
		"{":                        "cannot be read",
		"{} {}":                    "goes on after its first value",
		"[1e400]":                  "out of range",
		"[1e99999999999999999999]": "out of range",
		"\"\xff\"":                 "not in UTF-8",
		strings.Repeat("[", 128) + strings.Repeat("]", 128): "nested deeper than 127",
		`"` + strings.Repeat("x", 4095) + `"`:               "4096 is the limit",
	} {
		_, err := Metadata{Custom: []byte(in)}.Encode()
		require.ErrorContains(t, err, want, in)
	}
	_, err := Metadata{DockerInfo: []byte("nope")}.Encode()
	require.ErrorContains(t, err, "DockerInfo")
	_, err = Metadata{ImageName: strings.Repeat("x", MaxMetadata)}.Encode()
	require.ErrorContains(t, err, "is the limit")
	_, err = Metadata{Custom: []byte(strings.Repeat("[", 127) + strings.Repeat("]", 127))}.Encode()
	require.NoError(t, err)
}

func TestUnreadableMetadataIsRefused(t *testing.T) {
	for _, in := range []string{"", "[]", "{", `{"ImageName":1}`, strings.Repeat(" ", MaxMetadata+1)} {
		_, err := ParseMetadata([]byte(in))
		require.ErrorIs(t, err, ErrFormat)
	}
}

func TestNumbersAreWrittenAsSerdeDoes(t *testing.T) {
	for in, want := range map[string]string{
		"1e-99999999999999999999": "0.0",
		"0e99999999999999999999":  "0.0",
		"-0.0":                    "-0.0",
		"1E5":                     "100000.0",
		"1e-5":                    "0.00001",
		"1e-6":                    "1e-6",
	} {
		got, err := normalJSON([]byte(in))
		require.NoError(t, err)
		require.Equal(t, want, string(got), in)
	}
}
