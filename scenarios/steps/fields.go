package steps

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/nesim/nesim/internal/suggest"
)

// part is a field of a structure: its name, and its size in bytes.
type part struct {
	name string
	size int
}

// arrange orders values as a structure's fields. Fields without a value are 0.
func arrange(parts []part, fields map[string]uint64) ([]uint64, error) {
	values, names := make([]uint64, len(parts)), make([]string, len(parts))
	for i, part := range parts {
		names[i] = part.name
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		n := slices.Index(names, name)
		if n < 0 {
			return nil, unknownField(name, names)
		}
		if parts[n].size == 4 && value > math.MaxUint32 {
			return nil, fmt.Errorf("field %s has 32 bits: %d is too large", name, value)
		}
		values[n] = value
	}
	return values, nil
}

func unknownField(name string, known []string) error {
	if near := suggest.Nearest(name, known); near != "" {
		return fmt.Errorf("unknown field %q: did you mean %q?", name, near)
	}
	if len(known) == 0 {
		return fmt.Errorf("unknown field %q: the command has no fields", name)
	}
	return fmt.Errorf("unknown field %q: the fields are %s", name, strings.Join(known, ", "))
}
