package kms

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AccessKey is the pair with which clients sign their requests.
type AccessKey struct{ ID, Secret string }

// Bounds of an access key in characters. AWS's have IDs of 16 to 128 ("AccessKey", IAM API Reference) and secrets of 40.
var accessKey = regexp.MustCompile(`^(\w{1,128}):([!-~]{1,128})$`)

// ParseAccessKey reads ID:SECRET. The error does not quote it.
func ParseAccessKey(text string) (AccessKey, error) {
	match := accessKey.FindStringSubmatch(text)
	if match == nil {
		return AccessKey{}, fmt.Errorf("want ID:SECRET, an ID of letters, digits and underscores and a secret without spaces, at most 128 characters each")
	}
	return AccessKey{match[1], match[2]}, nil
}

// Names and constants of AWS Signature Version 4: "AWS Signature Version 4 for API requests", AWS IAM User Guide.
const (
	algorithm   = "AWS4-HMAC-SHA256"
	terminator  = "aws4_request"
	serviceName = "kms"
	dateHeader  = "X-Amz-Date"
	tokenHeader = "X-Amz-Security-Token"
	timeFormat  = "20060102T150405Z"
	dateFormat  = "20060102"
)

// maxSkew is how far from our clock a signature may be made.
const maxSkew = 5 * time.Minute

// temporaryPrefix begins the IDs of temporary credentials ("IAM identifiers", AWS IAM User Guide), which need a session token.
const temporaryPrefix = "ASIA"

// authenticate checks a request's signature. There is nothing to check without access keys.
//
// A library that signs cannot verify: it leaves out headers that other clients sign.
func (s *Service) authenticate(r *http.Request, body []byte) error {
	if len(s.secrets) == 0 {
		return nil
	}
	sig, err := readAuthorization(r)
	if err != nil {
		return err
	}
	if err := s.checkScope(sig, r); err != nil {
		return err
	}
	secret, known := s.secrets[sig.accessKeyID]
	if !known || strings.HasPrefix(sig.accessKeyID, temporaryPrefix) && r.Header.Get(tokenHeader) == "" {
		return refuse(errUnknownClient, "The security token included in the request is invalid.").
			because("the access key ID %.130q is not one of --access-key, or lacks its session token", sig.accessKeyID)
	}
	want := sig.sign(secret, sig.canonicalRequest(r, body))
	if !hmac.Equal([]byte(want), []byte(sig.signature)) {
		return refuse(errInvalidSignature, "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.").
			because("the signature with the access key %.130q is wrong", sig.accessKeyID)
	}
	return nil
}

// signature is what an Authorization header says.
type signature struct {
	accessKeyID string
	scope       [4]string // date, region, service, terminator
	headers     []string  // those signed, in lower case
	signature   string    // in lower-case hex
	time        time.Time
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 +Credential=(\w{1,128})/(\d{8})/([^/, ]{1,64})/([^/, ]{1,64})/([^/, ]{1,64}), *` +
	`SignedHeaders=([a-z0-9_.;-]+), *Signature=([0-9a-f]{64})$`)

// readAuthorization takes the header apart. Every header of AWS's own must be signed.
func readAuthorization(r *http.Request) (sig *signature, err error) {
	all := r.Header.Values("Authorization")
	switch {
	case r.URL.RawQuery != "" || r.URL.EscapedPath() != "/" && r.URL.EscapedPath() != "":
		return nil, refuse(errIncomplete, "Presigned requests are not supported: sign a POST of / by the Authorization header.").
			because("the request has a query or a path")
	case len(all) == 0:
		return nil, refuse(errNoAuthentication, "Missing Authentication Token").because("the request is not signed")
	}
	match := authorization.FindStringSubmatch(all[0])
	if len(all) > 1 || match == nil {
		return nil, refuse(errIncomplete, "Authorization header requires %s with 'Credential', 'SignedHeaders' and 'Signature' parameters.", algorithm).
			because("the Authorization header is not of %s", algorithm)
	}
	sig = &signature{accessKeyID: match[1], scope: [4]string(match[2:6]), headers: strings.Split(match[6], ";"), signature: match[7]}
	if sig.time, err = time.Parse(timeFormat, r.Header.Get(dateHeader)); err != nil {
		return nil, refuse(errIncomplete, "Authorization header requires existence of an '%s' header.", dateHeader).
			because("the header %s is %.40q", dateHeader, r.Header.Get(dateHeader))
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(sig.headers, name) {
			return nil, refuse(errInvalidSignature, "'%.80s' must be a 'SignedHeader' in the AWS Authorization.", name).
				because("the header %.80q is not signed", name)
		}
	}
	if !slices.Contains(sig.headers, "host") {
		return nil, refuse(errInvalidSignature, "'Host' must be a 'SignedHeader' in the AWS Authorization.").because("the header Host is not signed")
	}
	return sig, nil
}

// checkScope checks what a signature is for, and its time. The messages are AWS's.
func (s *Service) checkScope(sig *signature, r *http.Request) error {
	now := s.now().UTC()
	stamp := func(t time.Time) string { return t.UTC().Format(timeFormat) }
	message := ""
	switch {
	case sig.scope[0] != sig.time.Format(dateFormat):
		message = fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			sig.scope[0], sig.time.Format(dateFormat), stamp(sig.time))
	case sig.scope[1] != s.region:
		message = fmt.Sprintf("Credential should be scoped to a valid region, not '%.64s'. This service is of %s.", sig.scope[1], s.region)
	case sig.scope[2] != serviceName:
		message = fmt.Sprintf("Credential should be scoped to correct service: '%s'.", serviceName)
	case sig.scope[3] != terminator:
		message = fmt.Sprintf("Credential should be scoped with a valid terminator: '%s', not '%.64s'.", terminator, sig.scope[3])
	case now.Sub(sig.time) > maxSkew:
		message = fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)", stamp(sig.time), stamp(now.Add(-maxSkew)), stamp(now))
	case sig.time.Sub(now) > maxSkew:
		message = fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)", stamp(sig.time), stamp(now.Add(maxSkew)), stamp(now))
	default:
		return nil
	}
	return refuse(errInvalidSignature, "%s", message).because("%s", message)
}

// canonicalRequest is what is signed of a request. Its path is /, and it has no query.
func (sig *signature) canonicalRequest(r *http.Request, body []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n/\n\n", r.Method)
	for _, name := range sig.headers {
		fmt.Fprintf(&b, "%s:%s\n", name, headerValue(r, name))
	}
	fmt.Fprintf(&b, "\n%s\n%s", strings.Join(sig.headers, ";"), hexSHA256(string(body)))
	return b.String()
}

// headerValue is a header's value with its spaces folded. The HTTP server takes some out of the headers.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	case "transfer-encoding":
		return strings.Join(r.TransferEncoding, ",")
	}
	var values []string
	for _, value := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(value), " "))
	}
	return strings.Join(values, ",")
}

// sign returns the signature of a canonical request with a secret, in hex.
func (sig *signature) sign(secret, canonicalRequest string) string {
	key := []byte("AWS4" + secret)
	for _, part := range sig.scope {
		key = hmacSHA256(key, part)
	}
	text := strings.Join([]string{algorithm, sig.time.Format(timeFormat), strings.Join(sig.scope[:], "/"), hexSHA256(canonicalRequest)}, "\n")
	return hex.EncodeToString(hmacSHA256(key, text))
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func hexSHA256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
