package config

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Strategy says how the watermark follows the event times.
type Strategy string

// The strategies; see package watermark.
const (
	Bounded    Strategy = "bounded"
	WindowMin  Strategy = "window-min"
	Punctuated Strategy = "punctuated"
	Adaptive   Strategy = "adaptive"
)

// UnmarshalText accepts the known strategies.
func (s *Strategy) UnmarshalText(text []byte) error {
	return choose(s, text, Bounded, WindowMin, Punctuated, Adaptive)
}

// Law returns what the core calls it.
func (s Strategy) Law() watermark.Strategy {
	switch s {
	case WindowMin:
		return watermark.WindowMin
	case Punctuated:
		return watermark.Punctuated
	case Adaptive:
		return watermark.Adaptive
	}
	return watermark.Bounded
}

// Share is a share of something, in millionths.
type Share int

// UnmarshalText reads a number from 0.000001 to 0.5.
func (s *Share) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 1e-6 && f <= 0.5) {
		return problem{fmt.Sprintf("%q is not a number from 0.000001 to 0.5", text), "0.0001 is one in ten thousand"}
	}
	*s = Share(math.Round(f * 1e6))
	return nil
}

// String returns the share as UnmarshalText reads it.
func (s Share) String() string { return strconv.FormatFloat(float64(s)/1e6, 'f', -1, 64) }

// LateLimit is the share of late records above which that is a problem, in millionths. 0:
// it never is.
type LateLimit int

// UnmarshalText reads a number from 0 to 1.
func (l *LateLimit) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0 && f <= 1) {
		return problem{fmt.Sprintf("%q is not a number from 0 to 1", text), "0.05 is one in twenty; 0 turns it off"}
	}
	*l = LateLimit(math.Round(f * 1e6))
	return nil
}

// String returns the share as UnmarshalText reads it.
func (l LateLimit) String() string { return Share(l).String() }

// EnoughRecords is of how many records one can say that too many are late. Of fewer, a single
// late one might do, so there have to be enoughLate.
const (
	EnoughRecords = 20
	enoughLate    = 5
)

// Exceeded reports whether so many late records of all are more than the limit.
func (l LateLimit) Exceeded(late, of int64) bool {
	return l > 0 && (of >= EnoughRecords || late >= enoughLate) && float64(late) > float64(of)*float64(l)/1e6
}

// Delivery says how often a record may appear in the outputs.
type Delivery string

// The deliveries.
const (
	ExactlyOnce Delivery = "exactly-once"
	AtLeastOnce Delivery = "at-least-once"
)

// UnmarshalText accepts the known deliveries.
func (d *Delivery) UnmarshalText(text []byte) error { return choose(d, text, ExactlyOnce, AtLeastOnce) }

// Compression says how the batches of the outputs are compressed.
type Compression string

// The compressions.
const (
	CompressedLikeSource Compression = "source"
	Uncompressed         Compression = "none"
	Gzip                 Compression = "gzip"
	Snappy               Compression = "snappy"
	LZ4                  Compression = "lz4"
	Zstd                 Compression = "zstd"
)

// UnmarshalText accepts the known compressions.
func (c *Compression) UnmarshalText(text []byte) error {
	return choose(c, text, CompressedLikeSource, Uncompressed, Gzip, Snappy, LZ4, Zstd)
}

// OnReset says what to do when the group's offsets are gone or were reset while
// an output has records.
type OnReset string

// What to do on a reset.
const (
	ResetFails       OnReset = "fail"
	ResetBeginsEpoch OnReset = "new-epoch"
)

// UnmarshalText accepts the known answers.
func (o *OnReset) UnmarshalText(text []byte) error {
	return choose(o, text, ResetFails, ResetBeginsEpoch)
}

// OnDataLoss says what to do when records that were still owed are gone from
// the source topic.
type OnDataLoss string

// What to do on data loss.
const (
	LossFails     OnDataLoss = "fail"
	LossContinues OnDataLoss = "continue"
)

// UnmarshalText accepts the known answers.
func (o *OnDataLoss) UnmarshalText(text []byte) error {
	return choose(o, text, LossFails, LossContinues)
}

// LogLevel is the least important level that is logged.
type LogLevel string

// The levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// UnmarshalText accepts the known levels.
func (l *LogLevel) UnmarshalText(text []byte) error {
	return choose(l, text, LogDebug, LogInfo, LogWarn, LogError)
}

// Level returns the same level for package slog.
func (l LogLevel) Level() slog.Level {
	switch l {
	case LogDebug:
		return slog.LevelDebug
	case LogWarn:
		return slog.LevelWarn
	case LogError:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// LogFormat says what log lines look like.
type LogFormat string

// The formats. LogAuto is text on a terminal and JSON elsewhere.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// UnmarshalText accepts the known formats.
func (l *LogFormat) UnmarshalText(text []byte) error {
	return choose(l, text, LogAuto, LogText, LogJSON)
}

// SASLMechanism is a way to log in to the brokers, by Kafka's name for it.
type SASLMechanism string

// The mechanisms. NoSASL is the zero value.
const (
	NoSASL      SASLMechanism = ""
	Plain       SASLMechanism = "PLAIN"
	ScramSHA256 SASLMechanism = "SCRAM-SHA-256"
	ScramSHA512 SASLMechanism = "SCRAM-SHA-512"
	OAuthBearer SASLMechanism = "OAUTHBEARER"
	AWSMSKIAM   SASLMechanism = "AWS_MSK_IAM"
)

var allMechanisms = []SASLMechanism{Plain, ScramSHA256, ScramSHA512, OAuthBearer, AWSMSKIAM}

// UnmarshalText accepts the known mechanisms.
func (m *SASLMechanism) UnmarshalText(text []byte) error {
	return choose(m, text, allMechanisms...)
}

// HeaderSet says which headers are added to records in order.
type HeaderSet struct {
	Watermark    bool
	SourceOffset bool
	EventTime    bool
}

type headerName string

const (
	headerWatermark    headerName = "watermark"
	headerSourceOffset headerName = "source-offset"
	headerEventTime    headerName = "event-time"
	noHeaders          headerName = "none"
)

// UnmarshalText reads a comma-separated list of names, or "none" alone.
func (h *HeaderSet) UnmarshalText(text []byte) error {
	*h = HeaderSet{}
	if strings.EqualFold(string(text), string(noHeaders)) {
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		var name headerName
		part = strings.TrimSpace(part)
		if strings.EqualFold(part, string(noHeaders)) {
			return problem{fmt.Sprintf("%q goes with no other", part), "leave it out, or the others"}
		}
		if err := choose(&name, []byte(part), headerWatermark, headerSourceOffset, headerEventTime); err != nil {
			return err
		}
		h.Watermark = h.Watermark || name == headerWatermark
		h.SourceOffset = h.SourceOffset || name == headerSourceOffset
		h.EventTime = h.EventTime || name == headerEventTime
	}
	return nil
}

// String returns the list as UnmarshalText reads it.
func (h HeaderSet) String() string {
	var names []string
	for _, n := range []struct {
		on   bool
		name headerName
	}{{h.Watermark, headerWatermark}, {h.SourceOffset, headerSourceOffset}, {h.EventTime, headerEventTime}} {
		if n.on {
			names = append(names, string(n.name))
		}
	}
	if len(names) == 0 {
		return string(noHeaders)
	}
	return strings.Join(names, ",")
}

// choose sets dst to the one of the known words that text is, in any case of
// letters.
func choose[T ~string](dst *T, text []byte, known ...T) error {
	words := make([]string, len(known))
	for i, k := range known {
		if strings.EqualFold(string(k), string(text)) {
			*dst = k
			return nil
		}
		words[i] = string(k)
	}
	return problem{fmt.Sprintf("%q is not known", text), "known: " + strings.Join(words, ", ")}
}
