package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nesim/nesim/sim/instance"
)

// Whatever comes over the socket as a request to run is refused in one line, or is what the flags would have made.
func FuzzRunSpec(f *testing.F) {
	f.Add([]byte(`{"eif_path":"/a.eif","cpu_count":2,"memory_mib":256}`))
	f.Add([]byte(`{"eif_path":"/a.eif","cpu_count":-5,"cpu_ids":[2,3],"memory_mib":18446744073709551615,"enclave_cid":4294967296}`))
	f.Add([]byte("{\"eif_path\":\"\xff\",\"enclave_name\":\"\\u0000\"} {}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		spec, err := parseRunSpec(body)
		if err == nil {
			err = spec.Check()
		}
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.GreaterOrEqual(t, len(spec.EIFPath), 1)
		raw, err := json.Marshal(spec)
		require.NoError(t, err)
		again, err := parseRunSpec(raw)
		require.NoError(t, err)
		require.NoError(t, again.Check())
		again.CPUIDs, spec.CPUIDs = append([]uint32{}, again.CPUIDs...), append([]uint32{}, spec.CPUIDs...) // nil or empty
		require.Equal(t, spec, again)
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("id=i-0-enc1")
	f.Add("name=a&word=b&cid=4294967295&port=-1")
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if r, err := reference(query); err == nil {
			require.Equal(t, r, mustReference(t, refQuery(r)))
		}
		_, _ = number(query, "cid")
	})
}

func mustReference(t *testing.T, query url.Values) instance.Ref {
	r, err := reference(query)
	require.NoError(t, err)
	return r
}

// A daemon of another version, or none at all, may answer anything.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\nbytes"))
	f.Add([]byte("HTTP/1.1 422 X\r\nContent-Length: 30\r\n\r\n{\"error\":\"a\\nb\",\"code\":200}   "))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		req, err := request(t.Context(), http.MethodGet, pathAbout, nil)
		require.NoError(t, err)
		r := bufio.NewReader(bytes.NewReader(answer))
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		if err := refused(resp); err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		var about About
		if err := decode(resp.Body, &about); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			require.NotEmpty(t, strings.TrimSpace(err.Error()))
		}
		var m message
		_ = json.NewDecoder(resp.Body).Decode(&m)
	})
}
