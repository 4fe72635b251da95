package steps

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/nesim/nesim/scenarios"
)

var sendStep = kind[Send]("send", "send on a connection")

// Send sends bytes on a connection.
type Send struct {
	On   string         `yaml:"on" doc:"the connection" required:"true"`
	Text string         `yaml:"text" doc:"the text to send"`
	Hex  string         `yaml:"hex" doc:"bytes in hexadecimal, instead of text"`
	Size scenarios.Size `yaml:"size" doc:"send this many bytes, instead of text"`
}

// Check implements [scenarios.Action].
func (s *Send) Check(c *scenarios.Checker) {
	c.Uses(scenarios.Endpoint, s.On)
	c.OneOf("text, hex or size", s.Text != "", s.Hex != "", s.Size > 0)
	if s.Size > 0 && s.Size <= maxBytes {
		return // nothing else can be wrong
	}
	if _, err := s.data(); err != nil {
		c.Fail("%v", err)
	}
}

// data is what the step sends.
func (s *Send) data() ([]byte, error) {
	switch {
	case s.Size > maxBytes:
		return nil, fmt.Errorf("size %d is too large: send at most %d bytes", s.Size, maxBytes)
	case s.Size > 0:
		return pattern(int(s.Size)), nil
	case s.Hex != "":
		data, err := hex.DecodeString(strings.ReplaceAll(s.Hex, " ", ""))
		if err != nil {
			return nil, fmt.Errorf("hex: %w", err)
		}
		return data, nil
	}
	return []byte(s.Text), nil
}

// Do implements [Action].
func (s *Send) Do(ctx context.Context, w *World, _ Branch) error {
	c, err := find(w, w.conns, "a connection", s.On)
	if err != nil {
		return err
	}
	data, err := s.data()
	if err != nil {
		return err
	}
	if err := c.limit(ctx); err != nil {
		return err
	}
	n, err := c.Write(data)
	if err != nil {
		return fmt.Errorf("sent %d of %d bytes: %w", n, len(data), err)
	}
	return nil
}
