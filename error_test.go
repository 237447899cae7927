package dayfly_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestAProblemIsWrittenWithWhatIsKnownOfItsPlace(t *testing.T) {
	for want, p := range map[string]dayfly.Problem{
		"a.yaml:3:5: services.web: is missing": {File: "a.yaml", Line: 3, Column: 5, Field: "services.web", Message: "is missing"},
		"a.yaml:3: services.web: is missing":   {File: "a.yaml", Line: 3, Field: "services.web", Message: "is missing"},
		"a.yaml:3:5: is no YAML":               {File: "a.yaml", Line: 3, Column: 5, Message: "is no YAML"},
		"a.yaml: is too large":                 {File: "a.yaml", Message: "is too large"},
		"a.yaml: is too wide":                  {File: "a.yaml", Column: 5, Message: "is too wide"},
		"name: is missing":                     {Field: "name", Message: "is missing"},
		"name: is there twice":                 {Line: 3, Column: 5, Field: "name", Message: "is there twice"},
		"is wrong":                             {Message: "is wrong"},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAnErrorSaysItsMessageAndItsProblemsOneALine(t *testing.T) {
	cause := errors.New("cause")
	for want, err := range map[string]*dayfly.Error{
		"":                      {},
		"cause":                 {Err: cause},
		"what to do":            {Message: "what to do", Err: cause, Op: "op"},
		"a: is wrong":           dayfly.Invalid(dayfly.Problem{Field: "a", Message: "is wrong"}),
		"a: x\nb: y":            dayfly.Invalid(dayfly.Problem{Field: "a", Message: "x"}, dayfly.Problem{Field: "b", Message: "y"}),
		"not applied\na: x":     {Message: "not applied", Problems: []dayfly.Problem{{Field: "a", Message: "x"}}},
		"port 80: cause":        dayfly.Errorf(dayfly.CodeFailed, "port %d: %w", 80, cause),
		"100% of 1 not of %!s(": {Message: "100% of 1 not of %!s("},
	} {
		if got := err.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAnErrorKeepsItsCause(t *testing.T) {
	err := fmt.Errorf("create: %w", dayfly.Errorf(dayfly.CodeTimeout, "too slow: %w", context.DeadlineExceeded))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the cause is lost")
	}
	if e := dayfly.Errorf(dayfly.CodeFailed, "no cause: %v", context.Canceled); e.Err != nil || errors.Is(e, context.Canceled) {
		t.Errorf("%%v became a cause: %v", e.Err)
	}
	if e := dayfly.Invalid(); e.Code != dayfly.CodeInvalid || e.Unwrap() != nil {
		t.Errorf("%+v", e)
	}
}

func TestTheCodeOfAnErrorIsThatOfTheOutermostOne(t *testing.T) {
	inner := dayfly.Errorf(dayfly.CodeNotFound, "inner")
	for _, c := range []struct {
		err  error
		want dayfly.Code
	}{
		{nil, ""},
		{errors.New("x"), dayfly.CodeInternal},
		{inner, dayfly.CodeNotFound},
		{fmt.Errorf("y: %w", inner), dayfly.CodeNotFound},
		{dayfly.Errorf(dayfly.CodeConflict, "z: %w", inner), dayfly.CodeConflict},
		{errors.Join(errors.New("x"), inner), dayfly.CodeNotFound},
		{&dayfly.Error{Err: inner}, ""},
		{context.Canceled, dayfly.CodeInternal},
	} {
		if got := dayfly.ErrorCode(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
