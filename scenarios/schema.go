package scenarios

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// Schema is the JSON Schema (draft 2020-12) of a scenario, for editors.
func (l Language) Schema() []byte {
	m := &maker{language: l, defs: map[string]any{}}
	root := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "nesim scenario",
		"$ref":    m.ref(reflect.TypeFor[Scenario]()),
		"$defs":   m.defs,
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return append(text, '\n')
}

// maker makes the definitions of a schema, by the names of the types.
type maker struct {
	language Language
	defs     map[string]any
}

func (m *maker) ref(t reflect.Type) string {
	if _, made := m.defs[t.Name()]; !made {
		m.defs[t.Name()] = nil // it may hold itself
		m.defs[t.Name()] = m.structure(t)
	}
	return "#/$defs/" + t.Name()
}

func (m *maker) structure(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range fieldsOf(t) {
		properties[f.name] = described(m.of(t.FieldByIndex(f.index).Type, f.tag), f.tag.Get("doc"))
		if f.required {
			required = append(required, f.name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	if t == reflect.TypeFor[Step]() {
		s["oneOf"] = m.actions(properties)
	}
	return s
}

// actions adds the kinds of steps to a step's properties, of which a step has one.
func (m *maker) actions(properties map[string]any) []any {
	one := []any{map[string]any{"required": []string{"include"}}}
	for _, k := range m.language.kinds() {
		properties[k.Key] = described(m.of(reflect.TypeOf(k.New()), ""), k.Doc)
		one = append(one, map[string]any{"required": []string{k.Key}})
	}
	return one
}

func described(property map[string]any, doc string) map[string]any {
	if doc != "" {
		property["description"] = doc
	}
	return property
}

// scalar is a number or a text with variables in it.
func scalar(kind string) map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": kind}, map[string]any{"type": "string", "pattern": `^.*\$\{.*\}.*$`}}}
}

func (m *maker) of(t reflect.Type, tag reflect.StructTag) map[string]any {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "string", "pattern": `^([0-9.]+(ns|us|ms|s|m|h))+$|\$\{`}
	case reflect.TypeFor[Size]():
		return map[string]any{"anyOf": []any{map[string]any{"type": "integer", "minimum": 0}, map[string]any{"type": "string", "pattern": `^[0-9]+[KMG]?$|\$\{`}}}
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return map[string]any{"type": []string{"string", "number"}}
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
