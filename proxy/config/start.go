package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/watermark"
)

// StartKind says what kind of place a Start is.
type StartKind int

// The kinds of places to start.
const (
	StartEarliest StartKind = iota
	StartLatest
	StartTime
	StartGroup
)

// Start is where reading begins when the group has no offset. The zero value
// is the earliest record.
type Start struct {
	Kind  StartKind
	Time  watermark.Time // of StartTime: the timestamp to search for, whole milliseconds, not before 1970
	Group string         // of StartGroup: whose offsets to take
}

// UnmarshalText reads "earliest", "latest", a time, or "group:NAME".
func (s *Start) UnmarshalText(text []byte) error {
	word := string(text)
	group, isGroup := strings.CutPrefix(word, "group:")
	switch {
	case strings.EqualFold(word, "earliest"):
		*s = Start{Kind: StartEarliest}
	case strings.EqualFold(word, "latest"):
		*s = Start{Kind: StartLatest}
	case isGroup && group != "":
		*s = Start{Kind: StartGroup, Group: group}
	case isGroup:
		return problem{"the name of the group is missing", "like group:payments"}
	default:
		return s.parseTime(word)
	}
	return nil
}

var number = regexp.MustCompile(`^[+-]?\d+(\.\d*)?$`)

// parseTime keeps to milliseconds, the unit in which brokers search. Negative
// ones mean other things to them.
func (s *Start) parseTime(word string) error {
	if !number.MatchString(word) {
		return s.parseText(word)
	}
	ms, _ := strconv.ParseFloat(word, 64) // exact up to the year 287396
	t, ok := watermark.FromMillis(int64(max(min(ms, 1e18), -1e18)))
	switch unit := likelyUnit(ms); {
	case unit.name != "":
		meant := time.UnixMilli(int64(math.Round(ms * unit.ms))).UTC()
		return problem{
			fmt.Sprintf("%q looks like %s, but numbers are milliseconds since 1970", word, unit.name),
			fmt.Sprintf("for %s write that, or %d", meant.Format(time.RFC3339Nano), meant.UnixMilli()),
		}
	case !ok || ms < 0:
		return problem{fmt.Sprintf("%q is outside the years 1970 to 2262", word), "numbers are milliseconds"}
	case ms != math.Trunc(ms):
		return problem{fmt.Sprintf("%q is not a whole number of milliseconds", word), ""}
	}
	*s = Start{Kind: StartTime, Time: t}
	return nil
}

// unit is one in which a time may be written by mistake.
type unit struct {
	name string
	ms   float64
}

// likelyUnit returns the unit in which a number is a time of today, if it is none in ms:
// seconds, microseconds and nanoseconds are told by their size. Nobody starts by records that
// Kafka would have kept in 1970; earliest does.
func likelyUnit(n float64) unit {
	const first, last = 631_152_000_000, 4_102_444_800_000 // ms, from 1990 up to 2100
	for _, u := range []unit{{"seconds", 1000}, {"microseconds", 1e-3}, {"nanoseconds", 1e-6}} {
		if n*u.ms >= first && n*u.ms < last {
			return u
		}
	}
	return unit{}
}

// parseText reads a time as text, as event times are read.
func (s *Start) parseText(word string) error {
	t, err := timestamp.ParseText(word)
	_, day := time.Parse(time.DateOnly, word)
	switch {
	case err != nil && day == nil:
		return problem{fmt.Sprintf("%q has no time of day", word), "for midnight in UTC: " + word + "T00:00:00Z"}
	case errors.Is(err, timestamp.ErrNoZone):
		return problem{fmt.Sprintf("%q %s", word, err), "write it behind the time: Z for UTC, or an offset like +01:00"}
	case err == nil && t < 0:
		return problem{fmt.Sprintf("%q is outside the years 1970 to 2262", word), ""}
	case err != nil && len(word) > 10 && word[4] == '-':
		return problem{fmt.Sprintf("%q %s", word, err), "like 2006-01-02T15:04:05Z"}
	case err != nil:
		return problem{fmt.Sprintf("%q is no place to start", word), "known: earliest, latest, a time (like 2006-01-02T15:04:05Z, or ms since 1970), group:NAME"}
	}
	at, _ := watermark.FromMillis(t.Millis())
	*s = Start{Kind: StartTime, Time: at}
	return nil
}

// String returns the place as UnmarshalText reads it.
func (s Start) String() string {
	switch s.Kind {
	case StartLatest:
		return "latest"
	case StartTime:
		return time.UnixMilli(s.Time.Millis()).UTC().Format(time.RFC3339Nano)
	case StartGroup:
		return "group:" + s.Group
	}
	return "earliest"
}

// StartIsSet reports whether somebody has set where to begin.
func (c *Config) StartIsSet() bool { return c.origins != nil && c.origins[keyStart] == "" }
