package scenarios

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Schema is the JSON Schema (draft 2020-12) of a scenario, for editors.
//
//go:embed schema.json
var Schema []byte

// MakeSchema makes the schema of the language's types.
func MakeSchema() ([]byte, error) {
	m := &maker{defs: map[string]any{}}
	root := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "nesim scenario",
		"$ref":    m.ref(reflect.TypeFor[Scenario]()),
		"$defs":   m.defs,
	}
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

type maker struct{ defs map[string]any }

func (m *maker) ref(t reflect.Type) string {
	if _, made := m.defs[t.Name()]; !made {
		m.defs[t.Name()] = nil // it may hold itself
		m.defs[t.Name()] = m.structure(t)
	}
	return "#/$defs/" + t.Name()
}

func (m *maker) structure(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	var actions []any
	for _, f := range fieldsOf(t) {
		property := m.of(t.Field(f.index).Type, f.tag)
		if doc := f.tag.Get("doc"); doc != "" {
			property["description"] = doc
		}
		properties[f.name] = property
		if f.required {
			required = append(required, f.name)
		}
		if t == reflect.TypeFor[Step]() && !slices.Contains(stepCommon, f.name) {
			actions = append(actions, map[string]any{"required": []string{f.name}})
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	if actions != nil {
		s["oneOf"] = actions
	}
	return s
}

// scalar is a number or a text with variables in it.
func scalar(kind string) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": kind}, map[string]any{"type": "string", "pattern": `^.*\$\{.*\}.*$`}}}
}

func (m *maker) of(t reflect.Type, tag reflect.StructTag) map[string]any {
	switch t {
	case reflect.TypeFor[Duration]():
		return map[string]any{"type": "string", "pattern": `^([0-9.]+(ns|us|ms|s|m|h))+$|\$\{`}
	case reflect.TypeFor[Size]():
		return map[string]any{"anyOf": []any{map[string]any{"type": "integer", "minimum": 0}, map[string]any{"type": "string", "pattern": `^[0-9]+[KMG]?$|\$\{`}}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t.Elem().Kind() == reflect.Struct && t.Elem().NumField() == 0 {
			return map[string]any{"type": []string{"object", "null"}, "maxProperties": 0}
		}
		return m.of(t.Elem(), tag)
	case reflect.Struct:
		return map[string]any{"$ref": m.ref(t)}
	case reflect.Slice:
		list := map[string]any{"type": "array", "items": m.of(t.Elem(), tag)}
		if tag.Get("required") != "" {
			list["minItems"] = 1
		}
		return list
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": m.of(t.Elem(), "")}
	case reflect.Bool:
		return scalar("boolean")
	case reflect.String:
		if enum := tag.Get("enum"); enum != "" {
			return map[string]any{"anyOf": []any{map[string]any{"enum": strings.Split(enum, ",")}, map[string]any{"type": "string", "pattern": `\$\{`}}}
		}
		return map[string]any{"type": []string{"string", "number", "boolean"}}
	case reflect.Float64:
		return scalar("number")
	}
	return scalar("integer")
}
