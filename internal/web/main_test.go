package web_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/proxy"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hostile is a name that does harm wherever it is not escaped.
const hostile = `"><script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>';}</style>{{.}}`

// meeting is a situation in which people meet a page of ours.
type meeting struct {
	problem proxy.Problem
	shows   []string // what the page says
	reloads bool     // by itself, after Retry-After
}

// meetings are all of them, as the proxy describes them.
var meetings = map[string]meeting{
	"starting": {
		problem: proxy.Problem{
			Status: http.StatusServiceUnavailable, Code: "starting", Title: "frontend of fix-login is starting",
			Detail: "backend waits to be healthy: GET /healthz answered 503", Environment: "fix-login", Service: "frontend", State: "starting", RetryAfter: time.Second,
		},
		shows:   []string{"frontend of fix-login is starting", "backend waits to be healthy", "503", "goes on by itself"},
		reloads: true,
	},
	"no-instance": {
		problem: proxy.Problem{
			Status: http.StatusServiceUnavailable, Code: "no_instance", Title: "No instance of frontend of fix-login is healthy",
			Environment: "fix-login", Service: "frontend", State: "degraded", RetryAfter: 1500 * time.Millisecond,
		},
		shows:   []string{"No instance of frontend of fix-login is healthy", "degraded", "dayfly details fix-login"},
		reloads: true,
	},
	"failed": {
		problem: proxy.Problem{
			Status: http.StatusServiceUnavailable, Code: "failed", Title: "frontend of fix-login has failed",
			Detail: "the build ended with 1:\nfrontend/main.go:41:2: undefined: fmt.Printline", Environment: "fix-login", Service: "frontend", State: "failed",
		},
		shows: []string{"frontend of fix-login has failed", "frontend/main.go:41:2: undefined: fmt.Printline", "dayfly logs fix-login frontend"},
	},
	"failed-environment": {
		problem: proxy.Problem{
			Status: http.StatusServiceUnavailable, Code: "failed", Title: "fix-login has failed", Environment: "fix-login", State: "failed",
		},
		shows: []string{"dayfly details fix-login"},
	},
	"unknown-host": {
		problem: proxy.Problem{Status: http.StatusNotFound, Code: "unknown_host", Title: "Nothing is called fix-logon.localhost:8080"},
		shows:   []string{"Nothing is called fix-logon.localhost:8080", "404", "dayfly list"},
	},
	"unknown-environment": {
		problem: proxy.Problem{Status: http.StatusNotFound, Code: "unknown_environment", Title: `There is no environment "fix-login" (any more)`},
		shows:   []string{`There is no environment "fix-login" (any more)`, "dayfly list"},
	},
	"unknown-service": {
		problem: proxy.Problem{Status: http.StatusNotFound, Code: "unknown_service", Title: `No environment has a service "payments"`, Service: "payments"},
		shows:   []string{`No environment has a service "payments"`, "dayfly list"},
	},
	"no-route": {
		problem: proxy.Problem{Status: http.StatusNotFound, Code: "no_route", Title: "fix-login has nothing at this path", Environment: "fix-login", State: "ready"},
		shows:   []string{"fix-login has nothing at this path", "dayfly details fix-login"},
	},
	"deleting": {
		problem: proxy.Problem{Status: http.StatusNotFound, Code: "deleting", Title: "fix-login is being deleted", Environment: "fix-login", State: "deleting"},
		shows:   []string{"fix-login is being deleted", "dayfly list"},
	},
	"ambiguous": {
		problem: proxy.Problem{
			Status: http.StatusNotFound, Code: "ambiguous", Title: `Several projects have a service "api"`, Service: "api",
			Detail: "Say which environment is meant, by X-Dayfly-Env or SERVICE.ENV.internal. The projects are shop, blog",
		},
		shows: []string{"Say which environment is meant", "dayfly list"},
	},
	"bad-gateway": {
		problem: proxy.Problem{
			Status: http.StatusBadGateway, Code: "bad_gateway", Title: "The service did not answer",
			Detail: "frontend of fix-login: it closed the connection without an answer", Environment: "fix-login", Service: "frontend",
		},
		shows: []string{"The service did not answer", "without an answer", "502", "dayfly logs fix-login frontend"},
	},
	"timeout": {
		problem: proxy.Problem{
			Status: http.StatusGatewayTimeout, Code: "gateway_timeout", Title: "The service did not answer", Environment: "fix-login", Service: "frontend",
		},
		shows: []string{"504", "dayfly logs fix-login frontend"},
	},
	"hostile": {
		problem: proxy.Problem{
			Status: http.StatusServiceUnavailable, Code: "failed", Title: hostile, Detail: hostile, Environment: hostile, Service: hostile, State: "failed",
		},
		shows: []string{hostile},
	},
	"long": {
		problem: proxy.Problem{
			Status: http.StatusServiceUnavailable, Code: "failed",
			Title: "a-service-with-quite-a-long-name-for-a-service of feature-1234-a-very-long-branch-name-that-somebody-really-has-used-7f3c2a has failed",
			Detail: "/var/lib/dayfly/builds/0123456789abcdef0123456789abcdef0123456789abcdef/frontend/internal/handlers/checkout_handler_generated.go:1204:17: undefined: " +
				"checkoutServiceClientFactoryProviderImplementationRegistry",
			Environment: "feature-1234-a-very-long-branch-name-that-somebody-really-has-used-7f3c2a", Service: "a-service-with-quite-a-long-name-for-a-service", State: "failed",
		},
		shows: []string{"checkoutServiceClientFactoryProviderImplementationRegistry"},
	},
}
