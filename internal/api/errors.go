package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

// Problem is an error as RFC 9457 has it, with a code and all that is wrong with the
// input.
type Problem struct {
	Type     string           `json:"type"`
	Title    string           `json:"title"`
	Status   int              `json:"status"`
	Detail   string           `json:"detail,omitempty"`
	Code     string           `json:"code"`
	Problems []dayfly.Problem `json:"problems,omitempty"`
}

// Error implements error.
func (p Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p Problem) ContentType(string) string { return "application/problem+json" }

// statuses are the HTTP statuses of the codes; docs/errors.md has the same table.
func status(code dayfly.Code) int {
	switch code {
	case dayfly.CodeInvalid:
		return http.StatusUnprocessableEntity
	case dayfly.CodeUnauthorized:
		return http.StatusUnauthorized
	case dayfly.CodeForbidden:
		return http.StatusForbidden
	case dayfly.CodeNotFound:
		return http.StatusNotFound
	case dayfly.CodeConflict:
		return http.StatusConflict
	case dayfly.CodeTimeout:
		return http.StatusGatewayTimeout
	case dayfly.CodeUnavailable:
		return http.StatusServiceUnavailable
	case dayfly.CodeFailed:
		return http.StatusBadGateway
	default:
		return http.StatusInternalServerError
	}
}

// problemOf says an error as a Problem. What is our own fault is not told in detail.
func problemOf(err error) Problem {
	code := dayfly.ErrorCode(err)
	p := Problem{Type: "about:blank", Status: status(code), Code: string(code), Title: http.StatusText(status(code)), Detail: err.Error()}
	var e *dayfly.Error
	switch {
	case errors.As(err, &e):
		p.Problems = e.Problems
	default:
		p.Detail = "something went wrong inside; the server's log tells more"
	}
	return p
}

// fail turns an error of Control into the answer, and logs what is our own fault.
func (s *server) fail(err error) error {
	if dayfly.ErrorCode(err) == dayfly.CodeInternal {
		s.Logger.Error("a request failed", "error", err)
	}
	return problemOf(err)
}

// transform gives huma's own errors the shape of ours.
func (s *server) transform(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := Problem{Type: "about:blank", Title: http.StatusText(oneStatus(m.Status)), Status: oneStatus(m.Status), Detail: m.Detail, Code: "invalid"}
	switch m.Status {
	case http.StatusNotFound:
		p.Code = "not_found"
	case http.StatusInternalServerError:
		p.Code = "internal"
	}
	for _, e := range m.Errors {
		p.Problems = append(p.Problems, dayfly.Problem{Field: strings.TrimPrefix(e.Location, "body."), Message: e.Message})
	}
	return p, nil
}

func writeProblem(w http.ResponseWriter, p Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	tellWhen(p.Status, w.Header().Set)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone otherwise
}

// retryAfter is in how many seconds to ask again while the state cannot be reached or changed.
const retryAfter = "2"

// tellWhen says in the header of a 503 when to ask again.
func tellWhen(status int, set func(name, value string)) {
	if status == http.StatusServiceUnavailable {
		set("Retry-After", retryAfter)
	}
}

// exact is a context whose statuses are those of our codes.
type exact struct{ humaContext }

// humaContext has a name that its method Context does not have.
type humaContext = huma.Context

// SetStatus implements huma.Context.
func (c exact) SetStatus(status int) {
	tellWhen(status, c.SetHeader)
	c.humaContext.SetStatus(oneStatus(status))
}

// oneStatus lets input that is no JSON at all be invalid as any other wrong input is.
func oneStatus(status int) int {
	if status == http.StatusBadRequest {
		return http.StatusUnprocessableEntity
	}
	return status
}
