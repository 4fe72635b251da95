package eif

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Metadata says what an image is and how it was built: EifIdentityInfo. It is not measured.
type Metadata struct {
	ImageName    string
	ImageVersion string
	Build        BuildMetadata   `json:"BuildMetadata"`
	DockerInfo   json.RawMessage // what `docker image inspect` says; null where there is no such image
	Custom       json.RawMessage `json:"CustomMetadata"` // the user's own; null where there is none
}

// BuildMetadata is EifBuildInfo.
type BuildMetadata struct {
	BuildTime        string // usually from FormatBuildTime
	BuildTool        string
	BuildToolVersion string
	OperatingSystem  string // of the enclave
	KernelVersion    string // of the enclave
}

// MaxCustomMetadata is the most bytes that AWS's tools take of the user's own metadata: MAX_META_FILE_SIZE.
const MaxCustomMetadata = 4096

// Encode returns the JSON of the metadata section, to the byte as AWS's tools write it: no spaces, this order of the
// fixed keys, and the keys of DockerInfo and Custom sorted. Empty raw messages become null.
func (m Metadata) Encode() ([]byte, error) {
	docker, err := normalJSON(m.DockerInfo)
	if err != nil {
		return nil, fmt.Errorf("the metadata's DockerInfo: %w", err)
	}
	if len(m.Custom) > MaxCustomMetadata {
		return nil, fmt.Errorf("the custom metadata has %d bytes, %d is the limit", len(m.Custom), MaxCustomMetadata)
	}
	custom, err := normalJSON(m.Custom)
	if err != nil {
		return nil, fmt.Errorf("the custom metadata: %w", err)
	}
	b := []byte(`{"ImageName":`)
	b = appendJSONString(b, m.ImageName)
	b = append(b, `,"ImageVersion":`...)
	b = appendJSONString(b, m.ImageVersion)
	b = append(b, `,"BuildMetadata":{"BuildTime":`...)
	b = appendJSONString(b, m.Build.BuildTime)
	b = append(b, `,"BuildTool":`...)
	b = appendJSONString(b, m.Build.BuildTool)
	b = append(b, `,"BuildToolVersion":`...)
	b = appendJSONString(b, m.Build.BuildToolVersion)
	b = append(b, `,"OperatingSystem":`...)
	b = appendJSONString(b, m.Build.OperatingSystem)
	b = append(b, `,"KernelVersion":`...)
	b = appendJSONString(b, m.Build.KernelVersion)
	b = append(b, `},"DockerInfo":`...)
	b = append(b, docker...)
	b = append(b, `,"CustomMetadata":`...)
	b = append(b, custom...)
	b = append(b, '}')
	if len(b) > MaxMetadata {
		return nil, fmt.Errorf("the metadata has %d bytes, %d is the limit", len(b), MaxMetadata)
	}
	return b, nil
}

// ParseMetadata reads the JSON of a metadata section. Keys that are not there are left empty.
func ParseMetadata(data []byte) (Metadata, error) {
	var m Metadata
	if len(data) > MaxMetadata {
		return m, malformed("the metadata has %d bytes, %d is the limit", len(data), MaxMetadata)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			err = fmt.Errorf("a %s is where it does not belong, at byte %d", kind.Value, kind.Offset)
		}
		return Metadata{}, malformed("the metadata cannot be read: %w", err)
	}
	return m, nil
}

// FormatBuildTime formats a time as eif_build does: RFC 3339 in UTC, with as many groups of three digits after the
// second as are needed, at most nine digits.
func FormatBuildTime(t time.Time) string {
	t = t.UTC()
	layout := "2006-01-02T15:04:05.000000000"
	switch ns := t.Nanosecond(); {
	case ns == 0:
		layout = layout[:19]
	case ns%1e6 == 0:
		layout = layout[:23]
	case ns%1e3 == 0:
		layout = layout[:26]
	}
	return t.Format(layout) + "+00:00"
}
