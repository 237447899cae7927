package proxy_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
	proxytest.Run(t, func(_ *testing.T, c proxy.Config) proxytest.Engine { return proxy.New(c) })
}
