package config

import "log/slog"

const redacted = "***"

// Secret is a text that is never shown: not by fmt, not by encoding/json, not
// by a slog handler. The methods say so where they are called. Where they may
// not be, as in the unexported field of what is printed, or are not, as with
// %d, the text is behind a pointer, and fmt prints no more than its address.
type Secret struct{ text *string }

// NewSecret makes a secret of text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet reports whether there is a text.
func (s Secret) IsSet() bool { return s.Reveal() != "" }

// String returns stars, or nothing when nothing is set.
func (s Secret) String() string {
	if s.IsSet() {
		return redacted
	}
	return ""
}

// GoString returns the same as String.
func (s Secret) GoString() string { return s.String() }

// LogValue returns the same as String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the same as String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
