package kms

import (
	"fmt"
	"regexp"
	"strings"
)

// principal is one of a statement's.
type principal struct {
	kind string // AWS, Service, Federated or CanonicalUser
	name string // of kind AWS: an ARN, an account's ID, or *
}

// anybody is the principal that stands for everyone.
const anybody = "*"

// readPrincipals reads "*" or a map. Of its kinds AWS alone can be a caller here.
func readPrincipals(text []byte) ([]principal, error) {
	if string(text) == `"*"` {
		return []principal{{"AWS", anybody}}, nil
	}
	kinds, err := members(text, "Principal", "AWS", "Service", "Federated", "CanonicalUser")
	if err != nil {
		return nil, err
	}
	var principals []principal
	for _, kind := range sortedKeys(kinds) {
		names, err := texts(kinds[kind])
		if err != nil {
			return nil, fmt.Errorf("the principals of kind %s: %w", kind, err)
		}
		for _, name := range names {
			if name != anybody && strings.ContainsAny(name, "*?") {
				return nil, fmt.Errorf("the principal %.80q has a wildcard", name)
			}
			principals = append(principals, principal{kind, name})
		}
	}
	if len(principals) == 0 {
		return nil, fmt.Errorf("there is no principal")
	}
	return principals, nil
}

// Forms of a principal of kind AWS: "AWS JSON policy elements: Principal" and "IAM identifiers", AWS IAM User Guide.
var (
	accountPrincipal = regexp.MustCompile(`^(?:arn:aws:iam::)?([0-9]{12})(?::root)?$`)
	iamPrincipal     = regexp.MustCompile(`^arn:aws:iam::[0-9]{12}:(?:user|role)/[\w+=,.@/-]{1,576}$`)
	sessionPrincipal = regexp.MustCompile(`^arn:aws:sts::[0-9]{12}:(?:assumed-role/[\w+=,.@-]{1,64}/[\w+=,.@-]{2,64}|federated-user/[\w+=,.@-]{2,64})$`)
)

// accountOf returns the account that a principal is, or "".
func (p principal) accountOf() string {
	if match := accountPrincipal.FindStringSubmatch(p.name); match != nil {
		// One half of the ARN alone is no principal.
		if strings.HasPrefix(p.name, "arn:") == strings.HasSuffix(p.name, ":root") {
			return match[1]
		}
	}
	return ""
}

// valid reports whether IAM takes a principal at all.
func (p principal) valid() bool {
	return p.kind != "AWS" || p.name == anybody || p.accountOf() != "" || iamPrincipal.MatchString(p.name) || sessionPrincipal.MatchString(p.name)
}

// canCall reports whether a principal can stand for a caller of this service, whose administrator is given: all callers
// are the administrator or a role.
func (p principal) canCall(administrator string) bool {
	return p.kind == "AWS" && (p.name == anybody || p.accountOf() != "" || p.name == administrator || roleARN.MatchString(p.name))
}

// is reports whether a policy's principal stands for the caller. One that is an account denies to everybody in it, but
// allows only what IAM policies allow too.
func (c caller) is(p principal, deny bool) bool {
	switch {
	case p.kind != "AWS":
		return false
	case p.name == anybody, p.name == c.arn:
		return true
	case deny:
		return p.accountOf() != "" && strings.HasPrefix(c.arn, "arn:aws:iam::"+p.accountOf()+":")
	}
	return c.administrator && p.accountOf() == c.account
}
