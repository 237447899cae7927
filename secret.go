package dayfly

import "log/slog"

// Secret is a string that shows itself to nobody: formatting, logging and
// JSON give "[secret]". Reveal gives the value to the one place that needs it.
type Secret struct{ value string }

// NewSecret wraps value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal gives the value.
func (s Secret) Reveal() string { return s.value }

// IsZero says whether there is no value.
func (s Secret) IsZero() bool { return s.value == "" }

const hidden = "[secret]"

// String hides the value.
func (s Secret) String() string { return hidden }

// GoString hides the value from %#v.
func (s Secret) GoString() string { return hidden }

// LogValue hides the value from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the value from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
