package kms

import (
	"fmt"
	"net/http"
)

// Error is an error of the API: its name, as __type has it, and a message.
type Error struct {
	Type    string
	Message string

	why string // of a denial, for the log alone: what the policy or the signature lacks
}

func (e *Error) Error() string { return e.Type + ": " + e.Message }

// The names of errors: the operations' pages of the AWS KMS API Reference, and its
// "Common Error Types".
const (
	errAccessDenied       = "AccessDeniedException"
	errAlreadyExists      = "AlreadyExistsException"
	errCustomKeyStore     = "CustomKeyStoreNotFoundException"
	errDisabled           = "DisabledException"
	errDryRun             = "DryRunOperationException"
	errIncorrectKey       = "IncorrectKeyException"
	errInternal           = "KMSInternalException"
	errInvalidAlias       = "InvalidAliasNameException"
	errInvalidArn         = "InvalidArnException"
	errInvalidCiphertext  = "InvalidCiphertextException"
	errInvalidKeyUsage    = "InvalidKeyUsageException"
	errInvalidMarker      = "InvalidMarkerException"
	errIncomplete         = "IncompleteSignatureException"
	errInvalidSignature   = "InvalidSignatureException"
	errNoAuthentication   = "MissingAuthenticationTokenException"
	errUnknownClient      = "UnrecognizedClientException"
	errLimitExceeded      = "LimitExceededException"
	errMalformedPolicy    = "MalformedPolicyDocumentException"
	errNotFound           = "NotFoundException"
	errSerialization      = "SerializationException"
	errTooLarge           = "RequestEntityTooLargeException"
	errUnknownOperation   = "UnknownOperationException"
	errUnsupported        = "UnsupportedOperationException"
	errValidation         = "ValidationException"
	errMethodNotSupported = "MethodNotAllowedException"
)

func refuse(name, format string, a ...any) *Error {
	return &Error{Type: name, Message: fmt.Sprintf(format, a...)}
}

// because makes an error one that the log explains.
func (e *Error) because(format string, a ...any) *Error {
	e.why = fmt.Sprintf(format, a...)
	return e
}

// status is the HTTP status that goes with it: 400 for all that are the caller's fault.
func (e *Error) status() int {
	switch e.Type {
	case errInternal:
		return http.StatusInternalServerError
	case errTooLarge:
		return http.StatusRequestEntityTooLarge
	case errMethodNotSupported:
		return http.StatusMethodNotAllowed
	}
	return http.StatusBadRequest
}
