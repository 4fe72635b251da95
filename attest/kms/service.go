package kms

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/nsm"
)

// Config describes a service. Zero values of the last three take their defaults.
type Config struct {
	Dir     string               // of the keys
	Owner   []byte               // a secret of the user's own root, which seals them: (*pki.Authority).Derive
	Roots   []attest.Fingerprint // trusted for attestation documents
	Region  string               // us-east-1
	RoleARN string               // of the parent's role; it tells the account: nsm.DefaultRoleARN
	Clock   func() time.Time     // time.Now
}

// Service is a KMS. It is an http.Handler, safe for concurrent use.
type Service struct {
	roots   []attest.Fingerprint
	region  string
	role    string
	account string
	clock   func() time.Time
	store   *store

	mu   sync.RWMutex
	keys map[string]*record
}

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Open opens the keys of a folder, until Close. One service at a time can have it open.
func Open(c Config) (*Service, error) {
	s := &Service{roots: c.Roots, region: c.Region, role: c.RoleARN, clock: c.Clock, keys: map[string]*record{}}
	if s.region == "" {
		s.region = "us-east-1"
	}
	if s.role == "" {
		s.role = nsm.DefaultRoleARN
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if !regionName.MatchString(s.region) {
		return nil, fmt.Errorf("region %.40q: want one such as us-east-1", s.region)
	}
	match := roleARN.FindStringSubmatch(s.role)
	if match == nil {
		return nil, fmt.Errorf("role %.80q: want an ARN such as %s", s.role, nsm.DefaultRoleARN)
	}
	s.account = match[1]
	var err error
	if s.store, err = openStore(c.Dir, c.Owner); err != nil {
		return nil, fmt.Errorf("open the keys: %w", err)
	}
	records, err := s.store.load()
	if err != nil {
		s.store.close()
		return nil, fmt.Errorf("open the keys: %w", err)
	}
	for _, r := range records {
		s.keys[r.ID] = r
	}
	return s, nil
}

// Close gives up the folder. No request may be under way.
func (s *Service) Close() error { return s.store.close() }

// maxRequest is what is read of a request in bytes: more than any that is allowed.
const maxRequest = 1 << 20

// target begins the header X-Amz-Target.
const target = "TrentService."

// contentType is that of the protocol AWS JSON 1.1.
const contentType = "application/x-amz-json-1.1"

// ServeHTTP answers a request of the AWS JSON 1.1 protocol.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := s.answer(w, r)
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Amzn-Requestid", uuid())
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate, private")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "0")
	status := http.StatusOK
	if err != nil {
		failure := &Error{Type: errInternal, Message: err.Error()}
		errors.As(err, &failure)
		status, answer = failure.status(), failure.body()
	}
	var body []byte
	if answer != nil { // operations without results have no body
		if body, err = json.Marshal(answer); err != nil {
			status, body = http.StatusInternalServerError, []byte(`{"__type":"`+errInternal+`"}`)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// body is the error as AWS has it: access is denied with a capital Message.
func (e *Error) body() any {
	message := "message"
	if e.Type == errAccessDenied {
		message = "Message"
	}
	return map[string]string{"__type": e.Type, message: e.Message}
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	if r.Method != http.MethodPost {
		return nil, refuse(errMethodNotSupported, "the AWS KMS API is POST only")
	}
	if r.Header.Get("Origin") != "" { // a page in the user's browser, by whatever name it found us
		return nil, refuse(errAccessDenied, "browsers are not served")
	}
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), target)
	do := operations[name]
	if !ok || do == nil {
		return nil, refuse(errUnknownOperation, "the operation %.80q is unknown or not simulated", r.Header.Get("X-Amz-Target"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			return nil, refuse(errTooLarge, "a request has at most %d bytes", tooLong.Limit)
		}
		return nil, refuse(errSerialization, "the request could not be read: %v", err)
	}
	return do(s, &access{caller: s.caller(r), operation: name}, body)
}
