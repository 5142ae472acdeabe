package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

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

// parseTime keeps to milliseconds, the unit in which brokers search. Negative
// ones mean other things to them.
func (s *Start) parseTime(word string) error {
	ms, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		var t time.Time
		if t, err = time.Parse(time.RFC3339, word); err != nil {
			return problem{fmt.Sprintf("%q is no place to start", word), "known: earliest, latest, a time (like 2006-01-02T15:04:05Z, or ms since 1970), group:NAME"}
		}
		ms = t.UnixMilli()
	}
	t, ok := watermark.FromMillis(ms)
	if !ok || ms < 0 {
		return problem{fmt.Sprintf("%q is outside the years 1970 to 2262", word), "numbers are milliseconds"}
	}
	*s = Start{Kind: StartTime, Time: t}
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
