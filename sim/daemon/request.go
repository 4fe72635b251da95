package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/nesim/nesim/sim/instance"
)

// parseRunSpec reads the body of a request to run an enclave: one JSON object with the keys of a RunSpec and no others.
func parseRunSpec(body []byte) (spec instance.RunSpec, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		return instance.RunSpec{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return instance.RunSpec{}, errors.New("text after the JSON object")
	}
	return spec, nil
}

// reference reads which enclave a request is about.
func reference(query url.Values) (r instance.Ref, err error) {
	for key, field := range map[string]*string{"id": &r.ID, "name": &r.Name, "word": &r.Word} {
		*field = query.Get(key)
	}
	if n := len(r.ID) + len(r.Name) + len(r.Word); n == 0 || n != max(len(r.ID), len(r.Name), len(r.Word)) {
		return instance.Ref{}, errors.New("the request must name one enclave, by id, name or word")
	}
	return r, nil
}

// number reads a 32-bit number from the request's query.
func number(query url.Values, key string) (uint32, error) {
	n, err := strconv.ParseUint(query.Get(key), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a number of 32 bits", key, query.Get(key))
	}
	return uint32(n), nil
}
