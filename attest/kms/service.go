package kms

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nesim/nesim/attest"
	"github.com/nesim/nesim/attest/nsm"
)

// Config describes a service. Zero values of the last four take their defaults.
type Config struct {
	Dir        string               // of the keys
	Owner      []byte               // a secret of the user's own root, which seals them: (*pki.Authority).Derive
	Roots      []attest.Fingerprint // trusted for attestation documents
	RoleARN    string               // of callers with a session token; the keys are its account's
	AccessKeys []AccessKey          // whose signatures are accepted; none: signatures are not checked
	Hosts      []string             // names, in lower case, by which clients reach the service besides those of this machine
	Region     string               // us-east-1
	Clock      func() time.Time     // for attestation documents: time.Now
	Now        func() time.Time     // for signatures: time.Now
	Log        *slog.Logger         // of denials, a line each: none
}

// Service is a KMS. It is an http.Handler, safe for concurrent use.
type Service struct {
	roots   []attest.Fingerprint
	region  string
	role    string
	account string
	secrets map[string]string // by access key ID; empty where signatures are not checked
	hosts   []string
	clock   func() time.Time
	now     func() time.Time
	log     *slog.Logger
	store   *store

	mu   sync.RWMutex
	keys map[string]*record
}

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Open opens the keys of a folder, until Close. One service at a time can have it open.
func Open(c Config) (*Service, error) {
	s := &Service{
		roots: c.Roots, role: c.RoleARN, secrets: map[string]string{}, hosts: c.Hosts,
		region: cmp.Or(c.Region, "us-east-1"), clock: c.Clock, now: c.Now, log: c.Log, keys: map[string]*record{},
	}
	for _, key := range c.AccessKeys {
		s.secrets[key.ID] = key.Secret
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
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

// logDenial says on a line why a request was denied. The caller is "" as long as nobody knows who it is.
func (s *Service) logDenial(r *http.Request, caller string, err error) {
	e := (*Error)(nil)
	if !errors.As(err, &e) || e.why == "" {
		return
	}
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), target)
	s.log.Warn("denied", "operation", fmt.Sprintf("%.80s", operation), "caller", caller, "error", e.Type, "why", e.why)
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
	body, err := s.admit(w, r)
	if err != nil {
		s.logDenial(r, "", err)
		return nil, err
	}
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), target)
	do := operations[name]
	if !ok || do == nil {
		return nil, refuse(errUnknownOperation, "the operation %.80q is unknown or not simulated", r.Header.Get("X-Amz-Target"))
	}
	a := &access{caller: s.caller(r), operation: name, secure: r.TLS != nil}
	answer, err := do(s, a, body)
	s.logDenial(r, a.caller.arn, err)
	return answer, err
}

// admit reads the body of a request that comes from where it may and is signed as it must be.
func (s *Service) admit(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost {
		return nil, refuse(errMethodNotSupported, "the AWS KMS API is POST only")
	}
	if origin := r.Header.Get("Origin"); origin != "" { // a page in the user's browser, by whatever name it found us
		return nil, refuse(errAccessDenied, "browsers are not served").because("the request comes from a page of %.200q", origin)
	}
	if !s.servesHost(r) {
		return nil, refuse(errAccessDenied, "the host %.200q is not served", r.Host).because("the Host header %.200q is no name of this service", r.Host)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			return nil, refuse(errTooLarge, "a request has at most %d bytes", tooLong.Limit)
		}
		return nil, refuse(errSerialization, "the request could not be read: %v", err)
	}
	return body, s.authenticate(r, body)
}
