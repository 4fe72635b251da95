package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads the scenarios of a file, each a YAML document. One with a matrix becomes a scenario for each combination.
// The error joins *Error values.
//
// Files that it includes are read from the file's folder.
func (l Language) Parse(file string, content []byte) ([]*Scenario, error) {
	load := func(path string) ([]byte, error) { return read(os.Open(filepath.FromSlash(path))) }
	return l.parse(context.Background(), file, content, load)
}

// ParseFS is Parse for a file of a file system. It ends with the context's error when that is done.
func (l Language) ParseFS(ctx context.Context, fsys fs.FS, file string) ([]*Scenario, error) {
	load := func(path string) ([]byte, error) { return read(fsys.Open(path)) }
	content, err := load(file)
	if err != nil {
		return nil, err
	}
	return l.parse(ctx, file, content, load)
}

// reader reads a file, by a path with slashes.
type reader func(path string) ([]byte, error)

// read reads one byte more than a file may have, at most.
func read(f fs.File, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func (l Language) parse(ctx context.Context, file string, content []byte, read reader) (all []*Scenario, err error) {
	if len(content) > maxFile {
		return nil, &Error{file, 1, 1, fmt.Sprintf("the file has more than %d bytes", maxFile)}
	}
	left := newBudget(ctx)
	documents := yaml.NewDecoder(bytes.NewReader(content))
	var errs []error
	for {
		var n yaml.Node
		if err := documents.Decode(&n); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, errors.Join(append(errs, yamlError(file, err))...)
		}
		if len(n.Content) == 0 {
			continue
		}
		cases, err := l.parseDocument(file, n.Content[0], read, left)
		if all = append(all, cases...); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if len(errs) >= maxMistakes || left.spent() {
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &Error{file, 1, 1, "the file has no scenario"}
	}
	return all, nil
}

// yamlError gives an error of the YAML reader its place.
func yamlError(file string, err error) error {
	line := 1
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if _, scanErr := fmt.Sscanf(text, "line %d:", &line); scanErr == nil {
		_, text, _ = strings.Cut(text, ": ")
	}
	return &Error{file, line, 1, "invalid YAML: " + strings.ReplaceAll(text, "\n", " ")}
}

// parseDocument reads one scenario, or all cases of its matrix.
func (l Language) parseDocument(file string, n *yaml.Node, read reader, left *budget) (all []*Scenario, err error) {
	first, err := l.parseCase(file, n, nil, read, left)
	if err != nil || len(first.Matrix) == 0 {
		return []*Scenario{first}, err
	}
	if len(first.Matrix) > maxNames {
		return nil, &Error{file, n.Line, n.Column, fmt.Sprintf("the matrix has more than %d names", maxNames)}
	}
	cases := combinations(first.Matrix)
	if len(cases) > maxCases {
		return nil, &Error{file, n.Line, n.Column, fmt.Sprintf("the matrix has more than %d combinations", maxCases)}
	}
	for _, values := range cases {
		s, err := l.parseCase(file, n, values, read, left)
		if err != nil {
			return nil, err
		}
		s.Name += caseName(first.Name, values)
		if err := left.value(len(s.Name)); err != nil {
			return nil, &Error{file, n.Line, n.Column, err.Error()}
		}
		all = append(all, s)
	}
	return all, nil
}

// parseCase reads a scenario with values for its variables. Without any it is only looked at for its matrix and its errors.
func (l Language) parseCase(file string, n *yaml.Node, values map[string]string, read reader, left *budget) (*Scenario, error) {
	vars, hasMatrix := variables(n)
	maps.Copy(vars, values)
	d := &decoder{language: l, file: file, vars: vars, read: read, budget: left}
	if values != nil || !hasMatrix {
		n = d.substitute(n, 0)
	} else {
		n = only(n, "name", "matrix") // the rest is read with values
	}
	s := new(Scenario)
	d.value(n, reflect.ValueOf(s).Elem(), "")
	if values == nil && hasMatrix {
		d.errors = slices.DeleteFunc(d.errors, func(err error) bool { return strings.HasSuffix(err.Error(), `"steps" is missing`) })
		return s, errors.Join(d.errors...)
	}
	if len(d.errors) == 0 {
		d.errors = check(s, left)
	}
	return s, errors.Join(d.errors...)
}

// variables reads the variables of a document before anything else is read.
func variables(n *yaml.Node) (vars map[string]string, hasMatrix bool) {
	vars = make(map[string]string)
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "vars":
			for j, list := 0, n.Content[i+1].Content; n.Content[i+1].Kind == yaml.MappingNode && j+1 < len(list); j += 2 {
				vars[list[j].Value] = list[j+1].Value
			}
		case "matrix":
			hasMatrix = n.Content[i+1].Kind == yaml.MappingNode && len(n.Content[i+1].Content) > 0
		}
	}
	return vars, hasMatrix
}

// only is a mapping with some of its keys.
func only(n *yaml.Node, keys ...string) *yaml.Node {
	m := *n
	m.Content = nil
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if slices.Contains(keys, n.Content[i].Value) {
			m.Content = append(m.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &m
}

var variable = regexp.MustCompile(`\$\{([a-zA-Z_][a-zA-Z0-9_]*)\}`)

// substitute copies a tree with variables replaced in its scalars.
func (d *decoder) substitute(n *yaml.Node, depth int) *yaml.Node {
	m := *n
	if depth > 2*maxDepth || d.spent {
		return &m // reported when it is decoded
	}
	if n.Kind == yaml.ScalarNode {
		m.Value = d.expand(n)
		return &m
	}
	m.Content = make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		m.Content[i] = d.substitute(c, depth+1)
	}
	return &m
}

// expand replaces the variables of a scalar.
func (d *decoder) expand(n *yaml.Node) string {
	if !strings.Contains(n.Value, "${") {
		return n.Value
	}
	var b strings.Builder
	at := 0
	for _, use := range variable.FindAllStringSubmatchIndex(n.Value, -1) {
		name := n.Value[use[2]:use[3]]
		value, known := d.vars[name]
		if !known {
			d.fail(n, "no variable %q in vars or matrix%s", name, didYouMean(name, slices.Sorted(maps.Keys(d.vars))))
		}
		if !d.take(n, use[0]-at+len(value)) {
			return ""
		}
		b.WriteString(n.Value[at:use[0]])
		b.WriteString(value)
		at = use[1]
	}
	b.WriteString(n.Value[at:])
	return b.String()
}

// combinations lists all choices of one value a name, in the order of the names.
func combinations(matrix map[string][]string) []map[string]string {
	all := []map[string]string{{}}
	for _, name := range slices.Sorted(maps.Keys(matrix)) {
		var next []map[string]string
		for _, one := range all {
			for _, value := range matrix[name] {
				more := maps.Clone(one)
				more[name] = value
				if next = append(next, more); len(next) > maxCases {
					return next
				}
			}
		}
		all = next
	}
	return all
}

// caseName tells the values that a scenario's name, as the file has it, does not tell.
func caseName(name string, values map[string]string) string {
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(values)) {
		if !strings.Contains(name, "${"+v+"}") {
			parts = append(parts, v+"="+values[v])
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " [" + strings.Join(parts, ", ") + "]"
}
