package kms

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// roleARN is the form of a role's ARN ("IAM identifiers", AWS IAM User Guide). It tells the account.
var roleARN = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):role/[\w+=,.@/-]{1,512}$`)

// caller is who makes a request.
type caller struct {
	arn           string
	account       string // ours, whoever calls
	administrator bool
}

// caller tells who sent a request. Its signature is not looked at.
func (s *Service) caller(r *http.Request) caller {
	token := r.Header.Get("X-Amz-Security-Token")
	switch {
	case token == "":
		return caller{"arn:aws:iam::" + s.account + ":user/administrator", s.account, true}
	case roleARN.MatchString(token):
		return caller{token, s.account, false}
	}
	return caller{s.role, s.account, false}
}

// is tells whether a policy's principal stands for the caller. One that is the account
// denies to everybody in it, but allows only what IAM policies allow too.
func (c caller) is(principal string, deny bool) bool {
	switch principal {
	case "*", c.arn:
		return true
	case c.account, "arn:aws:iam::" + c.account + ":root":
		return c.administrator || deny && strings.HasPrefix(c.arn, "arn:aws:iam::"+c.account+":")
	}
	return false
}

// authorize asks a key's policy. The message is AWS's.
func (a *access) authorize(p policy) error {
	why := "no resource-based policy allows the kms:%s action"
	switch p.decide(a) {
	case allowed:
		return nil
	case denied:
		why = "of an explicit deny of the kms:%s action in a resource-based policy"
	}
	return refuse(errAccessDenied, "User: %s is not authorized to perform: kms:%s on resource: %s because %s",
		a.caller.arn, a.operation, a.key, fmt.Sprintf(why, a.operation))
}

// defaultPolicy leaves everything to the account: "Default key policy", AWS KMS Developer Guide.
func (s *Service) defaultPolicy() string {
	return fmt.Sprintf(`{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "arn:aws:iam::%s:root"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`, s.account)
}
