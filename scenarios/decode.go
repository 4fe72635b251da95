package scenarios

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// decoder turns YAML into the language's types. Whatever they do not have is an error.
type decoder struct {
	language Language
	file     string
	vars     map[string]string
	read     reader
	depth    int
	included int     // how many files deep
	budget   *budget // of the whole file
	spent    bool    // nothing more is read
	errors   []error // all of them, so that a file can be mended in one go
}

func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	if d.spent {
		return
	}
	d.errors = append(d.errors, &Error{d.file, n.Line, n.Column, fmt.Sprintf(format, args...)})
}

// take takes a value and its text from the file's budget, and reports whether there was so much.
func (d *decoder) take(n *yaml.Node, text int) bool {
	return !d.spent && d.within(n, d.budget.value(text))
}

// within reports whether the file is still within its limits; err says which one it exceeds.
func (d *decoder) within(n *yaml.Node, err error) bool {
	if err == nil && len(d.errors) >= maxMistakes {
		err = fmt.Errorf("more than %d mistakes: the rest is not read", maxMistakes)
	}
	if err != nil {
		d.fail(n, "%v", err)
		d.spent = true
	}
	return !d.spent
}

// value decodes n into v. tag is the field's, for what its values may be.
func (d *decoder) value(n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if !d.take(n, 0) {
		return
	}
	if d.depth++; d.depth > maxDepth {
		d.fail(n, "nested too deep")
		d.depth--
		return
	}
	defer func() { d.depth-- }()
	if n.Kind == yaml.AliasNode {
		d.fail(n, "anchors and aliases are not supported: use vars or include")
		return
	}
	switch target := v.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		d.name(n, target)
		return
	case *time.Duration:
		d.scalar(n, v, "a duration such as 30s", func(s string) (err error) {
			if *target, err = time.ParseDuration(s); err == nil && (*target < 0 || *target > maxDuration) {
				err = strconv.ErrRange
			}
			return err
		})
		return
	case *Size:
		d.scalar(n, v, "a number of bytes such as 4096, 64K, 2M or 1G", func(s string) error {
			size, err := parseSize(s)
			*target = Size(size)
			return err
		})
		return
	case *Step:
		d.step(n, target)
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
		d.number(n, v, tag)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, want string, parse func(string) error) {
	if n.Kind != yaml.ScalarNode || parse(n.Value) != nil {
		d.fail(n, "want %s, not %s", want, shown(n))
	}
}

// name decodes a word that its type knows.
func (d *decoder) name(n *yaml.Node, target encoding.TextUnmarshaler) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, "want text, not %s", shown(n))
	} else if err := target.UnmarshalText([]byte(n.Value)); err != nil {
		d.fail(n, "%v", err)
	}
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fail(n, "want text, not %s", shown(n))
		return
	}
	if enum := tag.Get("enum"); enum != "" {
		if words := strings.Split(enum, ","); !slices.Contains(words, n.Value) {
			d.fail(n, "unknown value %q: choose %s%s", n.Value, strings.Join(words, ", "), didYouMean(n.Value, words))
			return
		}
	}
	v.SetString(n.Value)
}

func (d *decoder) number(n *yaml.Node, v reflect.Value, tag reflect.StructTag) {
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
	if most, bounded := tag.Lookup("max"); bounded && v.CanInt() {
		if limit, _ := strconv.ParseInt(most, 10, 32); v.Int() > limit {
			d.fail(n, "%d is too large: give at most %d", v.Int(), limit)
		}
	}
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
		if v.Type().Elem() == reflect.TypeFor[Step]() {
			if d.include(item, v) {
				continue
			}
			d.within(item, d.budget.step())
		}
		if d.spent {
			return
		}
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(item, one, tag)
		v.Set(reflect.Append(v, one))
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "want keys with values, not %s", shown(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !d.take(n.Content[i], 0) {
			return
		}
		key := reflect.ValueOf(n.Content[i].Value)
		if v.MapIndex(key).IsValid() {
			d.fail(n.Content[i], "%q is given twice", n.Content[i].Value)
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
	index    []int
	tag      reflect.StructTag
	required bool
}

// allFields has what fieldsOf has found, by type.
var allFields sync.Map

// fieldsOf lists the keys of a structure, those of embedded structures too.
func fieldsOf(t reflect.Type) (fields []field) {
	if found, ok := allFields.Load(t); ok {
		return found.([]field)
	}
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("yaml"); name != "-" && name != "" {
			fields = append(fields, field{name, f.Index, f.Tag, f.Tag.Get("required") != ""})
		}
	}
	allFields.Store(t, fields)
	return fields
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value) {
	d.keys(n, v, nil)
	switch s := v.Addr().Interface().(type) {
	case *Fault:
		s.Place = d.place(n)
	case *Scenario:
		s.Place = d.place(n)
	}
}

func (d *decoder) place(n *yaml.Node) Place { return Place{d.file, n.Line, n.Column} }

// keys decodes a mapping into a structure. action, for a step, takes the keys that are not the structure's and reports
// whether the language has them.
func (d *decoder) keys(n *yaml.Node, v reflect.Value, action func(key, value *yaml.Node) bool) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && v.NumField() == 0 {
		return // a step without parameters
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, "want keys with values, not %s", shown(n))
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !d.take(key, 0) {
			return
		}
		if seen[key.Value] {
			d.fail(key, "%q is given twice", key.Value)
			continue
		}
		seen[key.Value] = true
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		switch {
		case at >= 0:
			d.value(value, v.FieldByIndex(fields[at].index), fields[at].tag)
		case action == nil || !action(key, value):
			d.unknownKey(key, fields, action != nil)
		}
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			d.fail(n, "%q is missing", f.name)
		}
	}
}

func (d *decoder) unknownKey(key *yaml.Node, fields []field, step bool) {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	if step {
		for _, k := range d.language.kinds() {
			names = append(names, k.Key)
		}
	}
	if near := didYouMean(key.Value, names); near != "" {
		d.fail(key, "unknown key %q%s", key.Value, near)
		return
	}
	d.fail(key, "unknown key %q: the keys are %s", key.Value, strings.Join(names, ", "))
}

// step decodes a step, which has one action.
func (d *decoder) step(n *yaml.Node, s *Step) {
	s.Place = d.place(n)
	var given []string
	d.keys(n, reflect.ValueOf(s).Elem(), func(key, value *yaml.Node) bool {
		kind := d.language.kind(key.Value)
		if kind == nil {
			return false
		}
		given = append(given, key.Value)
		s.Kind, s.Action = kind, kind.New()
		d.value(value, reflect.ValueOf(s.Action).Elem(), "")
		return true
	})
	slices.Sort(given)
	switch {
	case n.Kind != yaml.MappingNode:
	case s.Include != "":
		d.fail(n, "include must be the step's only key")
	case len(given) == 0:
		d.fail(n, "the step has no action: give it one such as run, dial or ended")
	case len(given) > 1:
		d.fail(n, "a step has one action, not %s: make them separate steps", strings.Join(given, " and "))
	}
}

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
