package scenarios

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/nesim/nesim/scenarios/fault"
)

// Tables are the reference tables of the manual in Markdown, by their names: "scenario" and "instance" have the keys of
// those, "steps" every kind of step, "faults" every point with its actions, and "fault" a fault's keys.
func (l Language) Tables() map[string]string {
	return map[string]string{
		"scenario": table("key", keyRows(reflect.TypeFor[Scenario]())),
		"instance": table("key", keyRows(reflect.TypeFor[Instance]())),
		"steps":    table("step", l.stepRows()),
		"faults":   table("`at`", faultRows()),
		"fault":    table("key", keyRows(reflect.TypeFor[Fault]())),
	}
}

// row is a name and what is said of it.
type row struct{ name, doc string }

func table(head string, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | |\n| --- | --- |\n", head)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s |\n", r.name, r.doc)
	}
	return b.String()
}

func keyRows(t reflect.Type) (rows []row) {
	for _, f := range fieldsOf(t) {
		rows = append(rows, row{"`" + f.name + "`", f.tag.Get("doc")})
	}
	return rows
}

// stepRows has a row for each kind of step: what it does, and its parameters.
func (l Language) stepRows() (rows []row) {
	for _, k := range l.kinds() {
		doc := k.Doc
		if t := reflect.TypeOf(k.New()).Elem(); t.Kind() == reflect.Struct && t.NumField() > 0 {
			var keys []string
			for _, f := range fieldsOf(t) {
				keys = append(keys, "`"+f.name+"`")
			}
			doc += ": " + strings.Join(keys, ", ")
		}
		rows = append(rows, row{"`" + k.Key + "`", doc})
	}
	return append(rows, row{"`include`", "insert the steps of another file"})
}

func faultRows() (rows []row) {
	for _, p := range fault.Points {
		var actions []string
		for _, a := range p.Actions {
			actions = append(actions, fmt.Sprintf("`%s`: %s", a.Action, a.Doc))
		}
		rows = append(rows, row{fmt.Sprintf("`%s`: %s", p.Point, p.Doc), strings.Join(actions, "; ")})
	}
	return rows
}
