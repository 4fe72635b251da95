package kms

import (
	"fmt"
	"net/http"
	"regexp"
)

// roleARN is the form of a role's ARN ("IAM identifiers", AWS IAM User Guide). It tells the account.
var roleARN = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):role/[\w+=,.@/-]{1,512}$`)

// caller is who makes a request.
type caller struct {
	arn           string
	account       string // ours, whoever calls
	administrator bool
}

// administratorARN is that of the account's administrator.
func (s *Service) administratorARN() string {
	return "arn:aws:iam::" + s.account + ":user/administrator"
}

// caller tells by the session token who sent a request.
func (s *Service) caller(r *http.Request) caller {
	token := r.Header.Get(tokenHeader)
	switch {
	case token == "":
		return caller{s.administratorARN(), s.account, true}
	case roleARN.MatchString(token):
		return caller{token, s.account, false}
	}
	return caller{s.role, s.account, false}
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
		a.caller.arn, a.operation, a.key, fmt.Sprintf(why, a.operation)).because("%s", p.explain(a))
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
