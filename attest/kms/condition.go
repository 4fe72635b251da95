package kms

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// condition is one test of a statement: the values of a condition key in a request against those of the policy.
type condition struct {
	operator
	name     string // the operator, as the policy has it
	set      setOperator
	ifExists bool // it holds where the request has no such key
	key      conditionKey
	want     []string
}

// operator is a condition operator without set operator and suffix.
type operator struct {
	compare func(want, value string) bool // nil for Null
	negated bool                          // no value that is wanted may compare
	boolean bool                          // it is for keys of type Bool, else for those of type String
}

// operators are those that are evaluated: "IAM JSON policy elements: Condition operators", AWS IAM User Guide. The others
// are for types that no key here has.
var operators = map[string]operator{
	"StringEquals":              {compare: equal},
	"StringNotEquals":           {compare: equal, negated: true},
	"StringEqualsIgnoreCase":    {compare: strings.EqualFold},
	"StringNotEqualsIgnoreCase": {compare: strings.EqualFold, negated: true},
	"StringLike":                {compare: like},
	"StringNotLike":             {compare: like, negated: true},
	"Bool":                      {compare: strings.EqualFold, boolean: true},
	null:                        {},
}

func equal(want, value string) bool { return want == value }

// null is the operator that looks whether a key exists. It is for keys of every type.
const null = "Null"

// setOperator says how the values of a request are compared: "Set operators for multivalued context keys", AWS IAM User Guide.
type setOperator string

const (
	noSet        setOperator = ""
	forAllValues setOperator = "ForAllValues"
	forAnyValue  setOperator = "ForAnyValue"
)

// readConditions reads a Condition element: operators, of condition keys, of values. The result is in the order of their names.
func readConditions(text []byte) (list []condition, err error) {
	tests, err := object(text, "Condition")
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(tests) {
		c, err := readOperator(name)
		if err != nil {
			return nil, err
		}
		keys, err := object(tests[name], name)
		if err != nil {
			return nil, err
		}
		for _, key := range sortedKeys(keys) {
			if err := c.read(key, keys[key]); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			list = append(list, c)
		}
	}
	return list, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// readOperator takes an operator's name apart.
func readOperator(name string) (condition, error) {
	c := condition{name: name}
	rest := name
	if set, operator, ok := strings.Cut(name, ":"); ok {
		c.set, rest = setOperator(set), operator
	}
	rest, c.ifExists = strings.CutSuffix(rest, "IfExists")
	known := false
	c.operator, known = operators[rest]
	switch {
	case !known, c.set != noSet && c.set != forAllValues && c.set != forAnyValue, rest == null && rest != name:
		return c, fmt.Errorf("the condition operator %.80q is unknown or not simulated", name)
	}
	return c, nil
}

// read reads a condition's key and the values that are wanted of it.
func (c *condition) read(key string, values []byte) (err error) {
	if c.key, err = readKey(key); err != nil {
		return err
	}
	isNull := c.compare == nil
	switch {
	case !isNull && c.boolean && !c.key.boolean:
		return fmt.Errorf("the condition key %.80q is a string, not a boolean", key)
	case !isNull && !c.boolean && c.key.boolean:
		return fmt.Errorf("the condition key %.80q is a boolean: compare it with Bool", key)
	case !isNull && c.key.multivalued && c.set == noSet:
		return fmt.Errorf("the condition key %.80q has several values: compare it with ForAllValues or ForAnyValue", key)
	}
	if isNull || c.boolean {
		c.want, err = booleans(values)
	} else {
		c.want, err = texts(values)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// booleans reads booleans, which may be strings as well.
func booleans(text []byte) ([]string, error) {
	if string(text) == "true" || string(text) == "false" {
		return []string{string(text)}, nil
	}
	list, err := texts(text)
	if err != nil {
		return nil, fmt.Errorf("want true or false")
	}
	for i, one := range list {
		if list[i] = strings.ToLower(one); list[i] != "true" && list[i] != "false" {
			return nil, fmt.Errorf("want true or false, not %.40q", one)
		}
	}
	return list, nil
}

// holds reports whether a condition does for the values that the request has of its key; a request without the key has none.
func (c *condition) holds(values []string) bool {
	switch {
	case c.compare == nil:
		return slices.Contains(c.want, strconv.FormatBool(len(values) == 0))
	case c.set == forAllValues: // vacuously for none, and the empty string counts as none
		return !slices.ContainsFunc(values, func(v string) bool { return v != "" && !c.matches(v) })
	case len(values) == 0 && c.ifExists:
		return true
	case c.set == forAnyValue:
		return slices.ContainsFunc(values, func(v string) bool { return v != "" && c.matches(v) })
	case len(values) == 0:
		return c.negated
	}
	// Single-valued, but an encryption context may have keys that differ in their case alone.
	if c.negated {
		return !slices.ContainsFunc(values, func(v string) bool { return !c.matches(v) })
	}
	return slices.ContainsFunc(values, c.matches)
}

// matches compares one value: with any that is wanted, or, negated, with none of them.
func (c *condition) matches(value string) bool {
	return c.negated != slices.ContainsFunc(c.want, func(want string) bool { return c.compare(want, value) })
}

// explain says what a condition wants and what the request has.
func (c *condition) explain(a *access) string {
	has := "nothing"
	if values := c.key.values(a); len(values) > 0 {
		has = quoted(values)
	} else if c.key.ofRecipient && a.recipient == nil {
		has = "no attestation document"
	}
	return fmt.Sprintf("%s %.100s wants %s, the request has %s", c.name, c.key.name, quoted(c.want), has)
}

// quoted writes values for a log, of which it shows the first few.
func quoted(values []string) string {
	const most, longest = 4, 200
	var b strings.Builder
	for i, v := range values[:min(len(values), most)] {
		if i > 0 {
			b.WriteString(" or ")
		}
		fmt.Fprintf(&b, "%.*q", longest, v)
	}
	if more := len(values) - most; more > 0 {
		fmt.Fprintf(&b, " or %d more", more)
	}
	return b.String()
}
