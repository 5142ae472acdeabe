package clocks

import (
	"fmt"
	"time"
)

// Span writes how far two times are apart so that it can be read: 1h5m0s, 3d4h, 56y. A day has
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
