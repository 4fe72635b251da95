package kms

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxPolicy is the size of a policy in bytes: PutKeyPolicy, AWS KMS API Reference.
const maxPolicy = 32768

// maxPattern bounds a string of a policy in bytes, so that matching stays quick.
const maxPattern = 2048

// policy is a key policy that has been understood.
type policy []statement

type statement struct {
	sid        string
	deny       bool
	principals []principal
	actions    []string // patterns
	resources  []string // patterns
	conditions []condition
}

// parsePolicy reads a policy. It refuses what it does not know; the error is a
// MalformedPolicyDocumentException.
func parsePolicy(text string) (policy, error) {
	p, err := readPolicy(text)
	if err != nil {
		return nil, refuse(errMalformedPolicy, "%v", err)
	}
	return p, nil
}

func readPolicy(text string) (p policy, err error) {
	if text == "" || len(text) > maxPolicy {
		return nil, fmt.Errorf("a policy has 1 to %d bytes", maxPolicy)
	}
	if err := unambiguous(text); err != nil {
		return nil, err
	}
	fields, err := members([]byte(text), "the policy", "Version", "Id", "Statement")
	if err != nil {
		return nil, err
	}
	if version := string(fields["Version"]); version != "" && version != `"2012-10-17"` && version != `"2008-10-17"` {
		return nil, fmt.Errorf("version %.40s is neither 2012-10-17 nor 2008-10-17", version)
	}
	var list []json.RawMessage
	if one := fields["Statement"]; len(one) > 0 && one[0] == '{' {
		list = []json.RawMessage{one}
	} else if json.Unmarshal(one, &list) != nil || len(list) == 0 {
		return nil, fmt.Errorf("the policy has no statement")
	}
	for n, item := range list {
		s, err := readStatement(item)
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", n+1, err)
		}
		p = append(p, s)
	}
	return p, nil
}

func readStatement(text []byte) (s statement, err error) {
	fields, err := members(text, "it", "Sid", "Effect", "Principal", "Action", "Resource", "Condition")
	if err != nil {
		return s, err
	}
	if fields["Sid"] != nil && json.Unmarshal(fields["Sid"], &s.sid) != nil {
		return s, fmt.Errorf("the element Sid: want a string")
	}
	switch string(fields["Effect"]) {
	case `"Allow"`: // case-sensitive, as IAM has it
	case `"Deny"`:
		s.deny = true
	default:
		return s, fmt.Errorf("the effect is neither Allow nor Deny")
	}
	if s.principals, err = readPrincipals(fields["Principal"]); err != nil {
		return s, err
	}
	if s.actions, err = texts(fields["Action"]); err != nil {
		return s, fmt.Errorf("the element Action: %w", err)
	}
	for _, action := range s.actions {
		if action != "*" && !strings.HasPrefix(strings.ToLower(action), "kms:") {
			return s, fmt.Errorf("the action %.80q is none of KMS", action)
		}
	}
	if s.resources, err = texts(fields["Resource"]); err != nil {
		return s, fmt.Errorf("the element Resource: %w", err)
	}
	if fields["Condition"] != nil {
		s.conditions, err = readConditions(fields["Condition"])
	}
	return s, err
}

// object takes a JSON object apart.
func object(text []byte, what string) (fields map[string]json.RawMessage, err error) {
	if len(text) == 0 {
		return nil, fmt.Errorf("%s is missing", what)
	}
	if err := json.Unmarshal(text, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("%s is not a JSON object", what)
	}
	return fields, nil
}

// members takes an object apart whose members must be among those known.
func members(text []byte, what string, known ...string) (map[string]json.RawMessage, error) {
	fields, err := object(text, what)
	if err != nil {
		return nil, err
	}
	for name := range fields {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%s has the element %.80q, which is unknown or not simulated", what, name)
		}
	}
	return fields, nil
}

// texts reads a string, or a list of one or more.
func texts(text []byte) (list []string, err error) {
	var one string
	if json.Unmarshal(text, &one) == nil && string(text) != "null" {
		list = []string{one}
	} else if json.Unmarshal(text, &list) != nil || len(list) == 0 {
		return nil, fmt.Errorf("want a string or a list of strings")
	}
	for _, one := range list {
		switch {
		case one == "" || len(one) > maxPattern:
			return nil, fmt.Errorf("a string is empty, or longer than %d bytes", maxPattern)
		case strings.Contains(one, "${"):
			return nil, fmt.Errorf("%.80q is a policy variable, which are not simulated", one)
		}
	}
	return list, nil
}

// maxDepth is how deep the values of a policy are nested.
const maxDepth = 8

// unambiguous refuses what is not JSON, and objects with two members of the same name, of
// which readers might see either.
func unambiguous(text string) error {
	d := json.NewDecoder(strings.NewReader(text))
	if err := walk(d, maxDepth); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("the policy has something after its end")
	}
	return nil
}

func walk(d *json.Decoder, depth int) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("the policy is not JSON: %w", err)
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == 0 {
		return fmt.Errorf("the policy is nested too deep")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return fmt.Errorf("the policy is not JSON: %w", err)
			}
			if seen[name.(string)] {
				return fmt.Errorf("the policy has %.80q twice", name)
			}
			seen[name.(string)] = true
		}
		if err := walk(d, depth-1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return fmt.Errorf("the policy is not JSON: %w", err)
	}
	return nil
}
