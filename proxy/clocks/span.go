package clocks

import (
	"fmt"
	"math"
	"time"
)

// Span writes how far two times are apart as a value in a log line: 1h5m0s, 3d4h, 56y. A day has
// 24 hours, a year 365.25 days.
func Span(d time.Duration) string {
	const (
		day  = 24 * time.Hour
		year = 365*day + day/4
	)
	switch {
	case d < 0 && d > -1<<63:
		return "-" + Span(-d)
	case d < 2*day:
		return d.String()
	case d < 2*year:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
	return fmt.Sprintf("%.0fy", d.Hours()/year.Hours())
}

// Words writes how long a time is as part of a sentence, to two or three digits: 4.2 s,
// 3 min 12 s, 57 years.
func Words(d time.Duration) string {
	if d < 0 {
		return "−" + Words(-max(d, -math.MaxInt64))
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
