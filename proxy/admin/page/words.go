package page

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/watermark"
)

// span says how long a time is, as sentences have it.
func span(d time.Duration) string { return clocks.Words(d) }

// distance says where a time is, seen from another that is d later.
func distance(d time.Duration, behind, ahead string) string {
	if d < 0 {
		return span(-max(d, -math.MaxInt64)) + " " + ahead
	}
	return span(d) + " " + behind
}

// clock writes a time of day in UTC, with the day if it is another than that of now.
func clock(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05.0 UTC")
	}
	return t.Format("2006-01-02 15:04:05.0 UTC")
}

// when writes an event time, and how long ago it is.
func when(t watermark.Time, now time.Time) string {
	if t == watermark.None {
		return "none yet"
	}
	return clock(time.Unix(0, int64(t)), now) + ", " + distance(ago(t, now), "ago", "ahead")
}

// ago returns by how much an event time is before now.
func ago(t watermark.Time, now time.Time) time.Duration {
	return watermark.Time(now.UnixNano()).Since(t)
}

// whole writes a number with its thousands apart.
func whole[T int | int32 | int64 | uint64](n T) string { return humanize.Comma(int64(n)) }

// plural writes a number of things.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return whole(n) + " " + many
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

// perSecond writes a rate to two or three digits.
func perSecond(r float64) string {
	switch {
	case r == 0:
		return "0"
	case r < 0.1:
		return "<0.1"
	case r < 9.95:
		return fmt.Sprintf("%.1f", r)
	}
	return humanize.Comma(int64(math.Round(r)))
}
