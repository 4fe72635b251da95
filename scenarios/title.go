package scenarios

import (
	"fmt"
	"reflect"
	"strings"
)

// maxTitle bounds a step's title, in bytes.
const maxTitle = 120

// Title is a step in one line: its name, or its action with the parameters that the file gives it.
func (s *Step) Title() string {
	if s.Name != "" {
		return s.Name
	}
	text := s.Kind.Key
	if branches, ok := s.Action.(*Parallel); ok {
		text += " " + strings.Join(branches.Names(), ", ")
	} else {
		text += shownValue(reflect.ValueOf(s.Action))
	}
	if s.ExpectError != 0 {
		text += " expect_error=" + s.ExpectError.String()
	}
	if len(text) > maxTitle {
		text = strings.ToValidUTF8(text[:maxTitle], "") + "..."
	}
	return strings.Join(strings.Fields(text), " ")
}

// shownValue writes a value on one line, and a structure as the keys that are set.
func shownValue(v reflect.Value) string {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if _, isText := v.Interface().(fmt.Stringer); isText || v.Kind() != reflect.Struct {
		return fmt.Sprint(v.Interface())
	}
	var b strings.Builder
	for _, f := range fieldsOf(v.Type()) {
		value := v.FieldByIndex(f.index)
		if value.IsZero() {
			continue
		}
		switch f.name {
		case "enclave", "on", "process":
			b.WriteString(" " + shownValue(value))
		default:
			b.WriteString(" " + f.name + "=" + strings.TrimSpace(shownValue(value)))
		}
	}
	return b.String()
}
