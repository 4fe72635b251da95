package scenarios

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Error is what is wrong with a file, and where.
type Error struct {
	File         string
	Line, Column int
	Text         string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text) }

// maxDepth bounds how deep values nest, parallel steps in parallel steps for one.
const maxDepth = 64

// decoder turns YAML into the language's types: what they do not have is an error.
type decoder struct {
	file     string
	vars     map[string]string
	read     reader
	depth    int
	included int     // how many files deep
	errors   []error // all of them: who mends a file wants to see them at once
}

func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	d.errors = append(d.errors, &Error{d.file, n.Line, n.Column, fmt.Sprintf(format, args...)})
}

// value decodes n into v. tag is the field's, for what its values may be.
func (d *decoder) value(n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if d.depth++; d.depth > maxDepth {
		d.fail(n, "this is nested too deep")
		d.depth--
		return
	}
	defer func() { d.depth-- }()
	if n.Kind == yaml.AliasNode {
		d.fail(n, "anchors and aliases are not taken: use vars or include")
		return
	}
	switch v.Interface().(type) {
	case Duration:
		d.scalar(n, v, "a length of time such as 30s", func(s string) error {
			t, err := time.ParseDuration(s)
			if err == nil && t < 0 {
				err = strconv.ErrRange
			}
			v.SetInt(int64(t))
			return err
		})
		return
	case Size:
		d.scalar(n, v, "a number of bytes such as 4096, 64K, 2M or 1G", func(s string) error {
			size, err := parseSize(s)
			v.SetUint(size)
			return err
		})
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), tag)
	case reflect.Struct:
		d.structure(n, v)
	case reflect.Slice:
		d.list(n, v, tag)
	case reflect.Map:
		d.mapping(n, v)
	case reflect.String:
		d.text(n, v, tag)
	default:
		d.number(n, v)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, want string, parse func(string) error) {
	if n.Kind != yaml.ScalarNode || parse(n.Value) != nil {
		d.fail(n, "want %s, not %s", want, shown(n))
	}
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fail(n, "want a text, not %s", shown(n))
		return
	}
	if enum := tag.Get("enum"); enum != "" {
		if words := strings.Split(enum, ","); !slices.Contains(words, n.Value) {
			d.fail(n, "no %q here%s: choose %s", n.Value, meant(n.Value, words), strings.Join(words, ", "))
			return
		}
	}
	v.SetString(n.Value)
}

func (d *decoder) number(n *yaml.Node, v reflect.Value) {
	d.scalar(n, v, kinds[v.Kind()], func(s string) (err error) {
		switch v.Kind() {
		case reflect.Bool:
			var b bool
			b, err = strconv.ParseBool(s)
			v.SetBool(b)
		case reflect.Int:
			var i int64
			i, err = strconv.ParseInt(s, 0, 32)
			v.SetInt(i)
		case reflect.Float64:
			var f float64
			f, err = strconv.ParseFloat(s, 64)
			v.SetFloat(f)
		default:
			var u uint64
			u, err = strconv.ParseUint(s, 0, v.Type().Bits())
			v.SetUint(u)
		}
		return err
	})
}

var kinds = map[reflect.Kind]string{
	reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Float64: "a number",
	reflect.Uint32: "a whole number from 0 to 4294967295", reflect.Uint64: "a whole number from 0 on",
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, "want a list, not %s", shown(n))
		return
	}
	for _, item := range n.Content {
		if v.Type().Elem() == reflect.TypeFor[Step]() && d.include(item, v) {
			continue
		}
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(item, one, tag)
		v.Set(reflect.Append(v, one))
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "want names with values, not %s", shown(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := reflect.ValueOf(n.Content[i].Value)
		if v.MapIndex(key).IsValid() {
			d.fail(n.Content[i], "%q is here twice", n.Content[i].Value)
			continue
		}
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], one, "")
		v.SetMapIndex(key, one)
	}
}

// field is a key of a structure.
type field struct {
	name     string
	index    int
	tag      reflect.StructTag
	required bool
}

func fieldsOf(t reflect.Type) (fields []field) {
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if name := tag.Get("yaml"); name != "-" && name != "" {
			fields = append(fields, field{name, i, tag, tag.Get("required") != ""})
		}
	}
	return fields
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && v.NumField() == 0 {
		return // a step without parameters
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, "want keys with values, not %s", shown(n))
		return
	}
	fields := fieldsOf(v.Type())
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		switch {
		case at < 0:
			d.fail(key, "no key %q here%s: the keys are %s", key.Value, meant(key.Value, names), strings.Join(names, ", "))
			continue
		case seen[key.Value]:
			d.fail(key, "%q is here twice", key.Value)
			continue
		}
		seen[key.Value] = true
		d.value(value, v.Field(fields[at].index), fields[at].tag)
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			d.fail(n, "%q is missing", f.name)
		}
	}
	d.place(n, v, seen)
}

// place does what is peculiar to steps and scenarios: they know where they stand, and a step does one thing.
func (d *decoder) place(n *yaml.Node, v reflect.Value, seen map[string]bool) {
	at := Place{d.file, n.Line, n.Column}
	switch s := v.Addr().Interface().(type) {
	case *Fault:
		s.Place = at
	case *Scenario:
		s.Place = at
	case *Step:
		s.Place = at
		var actions []string
		for name := range seen {
			if !slices.Contains(stepCommon, name) {
				actions = append(actions, name)
			}
		}
		slices.Sort(actions)
		switch len(actions) {
		case 0:
			d.fail(n, "a step without an action: give it one such as run, dial or ended")
		case 1:
		default:
			d.fail(n, "a step has one action, not %s: make them steps of their own", strings.Join(actions, " and "))
		}
	}
}

// stepCommon are a step's keys that are not its action.
var stepCommon = []string{"name", "timeout", "expect_error"}

// shown quotes what a file has where something else should be.
func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "keys with values"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return fmt.Sprintf("%.40q", n.Value)
}

// meant suggests the nearest of some words, if one is near.
func meant(word string, words []string) string {
	best, least := "", max(2, len(word)/3)+1
	for _, w := range words {
		if n := distance(word, w); n < least {
			best, least = w, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (%q is meant?)", best)
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}

// parseSize reads a number of bytes with a unit.
func parseSize(s string) (uint64, error) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("KMG", s[len(s)-1]); i >= 0 {
			s, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err == nil && n<<shift>>shift != n {
		err = strconv.ErrRange
	}
	return n << shift, err
}
