package cli

import (
	"context"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/app"
	"github.com/dayfly-dev/dayfly/internal/doctor"
)

func defaultData() string { return app.DefaultData() }

// examine looks at this host for a server that does not run.
func examine(ctx context.Context, data string) []dayfly.Finding {
	return doctor.Examine(ctx, doctor.Host{
		Data: data, Domain: "localhost", Addresses: map[string]string{"http": "127.0.0.1" + app.DefaultHTTP(), "internal": "127.0.0.1:7071", "listen": "127.0.0.1:7070"},
	})
}
