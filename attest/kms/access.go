package kms

import (
	"fmt"
	"slices"
	"strings"
)

// access is what a caller wants to do.
type access struct {
	caller    caller
	operation string
	key       string // its ARN
	recipient *recipient
	context   map[string]string // encryption context
	secure    bool              // the request came by TLS
}

// verdict is what a policy says.
type verdict int

const (
	silent verdict = iota // nothing allows it
	allowed
	denied // explicitly
)

func (p policy) decide(a *access) verdict {
	v := silent
	for i := range p {
		if s := &p[i]; s.concerns(a) && s.failing(a) == nil {
			if s.deny {
				return denied
			}
			v = allowed
		}
	}
	return v
}

// concerns reports whether a statement is about an access, whatever its conditions.
func (s *statement) concerns(a *access) bool {
	return slices.ContainsFunc(s.principals, func(p principal) bool { return a.caller.is(p, s.deny) }) &&
		slices.ContainsFunc(s.actions, func(pattern string) bool { return likeAction(pattern, a.operation) }) &&
		slices.ContainsFunc(s.resources, func(pattern string) bool { return like(pattern, a.key) })
}

// failing returns the first condition that does not hold, or nil.
func (s *statement) failing(a *access) *condition {
	for i := range s.conditions {
		if c := &s.conditions[i]; !c.holds(c.key.values(a)) {
			return c
		}
	}
	return nil
}

// maxReasons bounds the statements that explain names.
const maxReasons = 8

// explain says why a policy does not allow an access: which statement denies it, or which condition of each statement
// that could allow it fails, and the value in the request.
func (p policy) explain(a *access) string {
	var reasons []string
	for i := range p {
		s := &p[i]
		if !s.concerns(a) {
			continue
		}
		failing := s.failing(a)
		switch {
		case s.deny && failing == nil:
			return s.name(i) + " denies it" + s.held(a)
		case !s.deny && failing != nil && len(reasons) < maxReasons:
			reasons = append(reasons, s.name(i)+" does not allow it: "+failing.explain(a))
		}
	}
	if len(reasons) == 0 {
		return "no statement allows the action to this principal"
	}
	return strings.Join(reasons, "; ")
}

func (s *statement) name(index int) string {
	if s.sid == "" {
		return fmt.Sprintf("statement %d", index+1)
	}
	return fmt.Sprintf("statement %d (%.80s)", index+1, s.sid)
}

// held lists the conditions of a statement that denies.
func (s *statement) held(a *access) string {
	var held []string
	for i := range s.conditions {
		held = append(held, s.conditions[i].explain(a))
	}
	if len(held) == 0 {
		return ""
	}
	return ": " + strings.Join(held[:min(len(held), maxReasons)], "; ")
}

// likeAction matches an action's pattern, whose case does not matter, with an operation.
func likeAction(pattern, operation string) bool {
	return like(strings.ToLower(pattern), strings.ToLower("kms:"+operation))
}

// like matches a pattern in which * is any text and ? any character.
func like(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	star, mark := -1, 0 // where the last * is, and what it has taken
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(string(p[i:]), "*") == ""
}
