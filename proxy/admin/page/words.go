package page

import (
	"fmt"
	"math"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/tidemarkhq/tidemark/watermark"
)

// span says how long a time is, to two or three digits.
func span(d time.Duration) string {
	if d < 0 {
		return "−" + span(-max(d, -math.MaxInt64))
	}
	switch {
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return "<1 ms"
	case d < 995*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute-time.Second/2:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour-time.Second/2:
		return parts(d, time.Minute, "min", time.Second, "s")
	case d < 48*time.Hour:
		return parts(d, time.Hour, "h", time.Minute, "min")
	case d < 1000*24*time.Hour:
		return parts(d, 24*time.Hour, "d", time.Hour, "h")
	}
	return fmt.Sprintf("%.0f years", d.Hours()/24/365.25)
}

func parts(d, unit time.Duration, name string, fraction time.Duration, fractionName string) string {
	d = d.Round(fraction)
	if rest := d % unit / fraction; rest > 0 {
		return fmt.Sprintf("%d %s %d %s", d/unit, name, rest, fractionName)
	}
	return fmt.Sprintf("%d %s", d/unit, name)
}

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
