package embedded

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// slogCore hands etcd's warnings and errors to slog.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
	// closing is set when the server stops: etcd calls everything that then
	// ends an error.
	closing *atomic.Bool
}

// usual are parts of messages that every start gives and that tell a user nothing.
var usual = []string{
	"Running http and grpc server on single port. This is not recommended for production.",
	"simple token is not cryptographically signed",
	// Of a state that is new, until its first snapshot.
	"Failed to detect schema version",
	"failed to update storage version",
	// Told to begin an election a little too early, see Server.ready.
	"since there are still pending configuration changes to apply",
	"is unpromotable and can not campaign",
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return l > zapcore.ErrorLevel || l >= zapcore.WarnLevel && !c.closing.Load()
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, fields: slices.Concat(c.fields, fields), closing: c.closing}
}

func (c *slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	isUsual := func(part string) bool { return strings.Contains(e.Message, part) }
	if c.Enabled(e.Level) && !slices.ContainsFunc(usual, isUsual) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	encoded := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(encoded)
	}
	attrs := []slog.Attr{slog.String("component", "etcd")}
	for key, value := range encoded.Fields {
		attrs = append(attrs, slog.Any(key, value))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return cmp.Compare(a.Key, b.Key) })
	c.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}

func (c *slogCore) Sync() error { return nil }
