package nsm

// ErrorCode is an error as the enclave sees it: the API's enum ErrorCode.
type ErrorCode string

const (
	Success          ErrorCode = "Success"          // no error; never sent as one
	InvalidArgument  ErrorCode = "InvalidArgument"  // a request with arguments missing, or of the wrong type or value
	InvalidIndex     ErrorCode = "InvalidIndex"     // there is no such PCR
	InvalidResponse  ErrorCode = "InvalidResponse"  // for the enclave's library: an answer to another request
	ReadOnlyIndex    ErrorCode = "ReadOnlyIndex"    // the PCR is locked
	InvalidOperation ErrorCode = "InvalidOperation" // no request of the API
	BufferTooSmall   ErrorCode = "BufferTooSmall"   // it was done, but the response does not fit
	InputTooLarge    ErrorCode = "InputTooLarge"    // the request, or something in it
	InternalError    ErrorCode = "InternalError"    // such as a certificate that cannot be issued
)

// Error implements error.
func (e ErrorCode) Error() string { return "NSM: " + string(e) }
