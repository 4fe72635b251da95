package vfiouser

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Protocol version served and spoken: 0.1 and everything before it.
const (
	versionMajor = 0
	versionMinor = 1
)

// capabilities is the JSON of VERSION messages, as far as this package uses it.
// A nil field was not given (vfio-user.rst, "VFIO_USER_VERSION").
type capabilities struct {
	MaxMsgFDs       *uint64 `json:"max_msg_fds,omitempty"`
	MaxDataXferSize *uint64 `json:"max_data_xfer_size,omitempty"`
	MaxDMAMaps      *uint64 `json:"max_dma_maps,omitempty"`
}

type versionData struct {
	Capabilities capabilities `json:"capabilities"`
}

// limits returns this side's capabilities.
func limits() capabilities {
	fds, xfer, maps := uint64(MaxMessageFDs), uint64(MaxTransfer), uint64(MaxDMAMaps)
	return capabilities{MaxMsgFDs: &fds, MaxDataXferSize: &xfer, MaxDMAMaps: &maps}
}

// subset returns our capabilities that the peer proposed too: the reply may not
// name others.
func (peer capabilities) subset() capabilities {
	c := limits()
	if peer.MaxMsgFDs == nil {
		c.MaxMsgFDs = nil
	}
	if peer.MaxDataXferSize == nil {
		c.MaxDataXferSize = nil
	}
	if peer.MaxDMAMaps == nil {
		c.MaxDMAMaps = nil
	}
	return c
}

// parseCapabilities reads the optional, NUL-terminated JSON of a VERSION message.
func parseCapabilities(b []byte) (capabilities, error) {
	var v versionData
	if len(b) == 0 {
		return v.Capabilities, nil
	}
	text, ok := bytes.CutSuffix(b, []byte{0})
	if !ok || len(b) > maxVersionData {
		return v.Capabilities, fmt.Errorf("version data of %d bytes is not terminated or too long", len(b))
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v.Capabilities, fmt.Errorf("version data is not the expected JSON: %w", err)
	}
	return v.Capabilities, nil
}

// appendVersion appends the payload of a VERSION message.
func appendVersion(b []byte, minor uint16, c capabilities) []byte {
	b = le.AppendUint16(b, versionMajor)
	b = le.AppendUint16(b, minor)
	text, err := json.Marshal(versionData{c})
	if err != nil {
		panic(err) // three integers always marshal
	}
	return append(append(b, text...), 0)
}
