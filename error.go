package dayfly

import (
	"errors"
	"fmt"
	"strings"
)

// Code classifies an error for machines. It decides the HTTP status of an API
// answer and the exit code of a command; see docs/errors.md.
type Code string

// The codes of Error.
const (
	CodeInvalid      Code = "invalid"      // the input is wrong: HTTP 422, exit 2
	CodeUnauthorized Code = "unauthorized" // no or a wrong token: HTTP 401, exit 4
	CodeForbidden    Code = "forbidden"    // not allowed: HTTP 403, exit 4
	CodeNotFound     Code = "not_found"    // HTTP 404, exit 3
	CodeConflict     Code = "conflict"     // somebody else has it, or changed it meanwhile: HTTP 409, exit 7
	CodeTimeout      Code = "timeout"      // HTTP 504, exit 6
	CodeUnavailable  Code = "unavailable"  // try again later: HTTP 503, exit 5
	CodeFailed       Code = "failed"       // what was asked for was tried and failed: HTTP 502, exit 1
	CodeInternal     Code = "internal"     // our own fault: HTTP 500, exit 1
)

// Error is the error of every layer: Code for machines, Message for people
// (what happened and what to do next, never a secret), Op for developers and
// Err for the cause.
type Error struct {
	Code     Code
	Message  string
	Op       string
	Err      error
	Problems []Problem // all that is wrong with an input, when Code is CodeInvalid
}

// Problem is one mistake in a file or a request.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // from 1; 0 is unknown
	Column  int    `json:"column,omitempty"` // from 1; 0 is unknown
	Field   string `json:"field,omitempty"`  // "services.web.x-dayfly.route"
	Message string `json:"message"`
}

// String gives "file:line:column: field: message", leaving out what is unknown.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
			if p.Column > 0 {
				fmt.Fprintf(&b, ":%d", p.Column)
			}
		}
		b.WriteString(": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Error gives the message and, one a line, the problems.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Message == "" && e.Err != nil {
		b.WriteString(e.Err.Error())
	}
	for _, p := range e.Problems {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error; a %w in the format becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Invalid makes an Error of CodeInvalid from problems.
func Invalid(problems ...Problem) *Error {
	return &Error{Code: CodeInvalid, Problems: problems}
}

// ErrorCode gives the code of the outermost Error in err's chain,
// CodeInternal for any other error and "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
