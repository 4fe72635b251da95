package scenarios

import (
	"path"
	"path/filepath"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// include puts the steps of a file in place of a step that includes it, and reports whether this is one.
func (d *decoder) include(n *yaml.Node, steps reflect.Value) bool {
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[0].Value != "include" {
		return false
	}
	name := n.Content[1]
	if !d.take(n, 0) {
		return true
	}
	switch {
	case !filepath.IsLocal(name.Value):
		d.fail(name, "%s is outside the file's folder", name.Value)
		return true
	case d.included == maxIncluded:
		d.fail(name, "%s includes itself, or includes nest deeper than %d files", name.Value, maxIncluded)
		return true
	}
	file := path.Join(path.Dir(filepath.ToSlash(d.file)), name.Value)
	content, err := d.read(file)
	if err != nil {
		d.fail(name, "%v", err)
		return true
	}
	if !d.within(name, d.budget.include(len(content))) {
		return true
	}
	d.errors = append(d.errors, d.includeFile(file, content, steps)...)
	return true
}

func (d *decoder) includeFile(file string, content []byte, steps reflect.Value) []error {
	if len(content) > maxFile {
		return []error{&Error{file, 1, 1, "the file is too long"}}
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return []error{yamlError(file, err)}
	}
	if len(document.Content) == 0 {
		return nil
	}
	part := &decoder{language: d.language, file: file, vars: d.vars, read: d.read, included: d.included + 1, depth: d.depth, budget: d.budget}
	list := reflect.New(steps.Type()).Elem()
	part.value(part.substitute(document.Content[0], 0), list, "")
	steps.Set(reflect.AppendSlice(steps, list))
	d.spent = part.spent
	return part.errors
}
