package timestamp

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Times as text are read by a grammar of our own. package time's is close to it, but takes
// an offset of +24:60, takes no 04:40Z, and is another one from one version of Go to the
// next: the same record would get another event time by an upgrade that nobody connects
// with it.
//
//	text   = date ( "T" | "t" | " " ) clock [ zone ]
//	date   = YYYY "-" MM "-" DD
//	clock  = [H]H ":" MM [ ":" SS [ ( "." | "," ) digits ] ]
//	zone   = [ " " ] ( "Z" | "z" | offset ) { "[" name "]" } | " UTC"
//	offset = ( "+" | "-" ) HH [ [ ":" ] MM [ ":" SS ] ]
//
// That is RFC 3339 with what producers make of it: java.time leaves out seconds that are 0
// and writes the zone's name behind its offset, it and Python write the seconds of offsets
// that have some, Postgres leaves out minutes and has a space for the T, Python's %z has no
// colon, Ruby spaces and UTC, and patterns with one H make an hour of one digit. All of them
// say the same time in any reading, or it is not accepted.
//
// A second 60 is the one after it: Unix time has no room for leap seconds. The offset
// decides, whatever the name in brackets says. Digits beyond a nanosecond are cut off.

// clockText is what has not been read yet.
type clockText []byte

// text returns the time that value spells. One without a zone is only taken by a format that
// says which.
func (f format) text(value []byte) (watermark.Time, string) {
	rest := clockText(value)
	clock, nanos, ok := rest.dateAndClock()
	if !ok {
		return watermark.None, whyNotRFC3339
	}
	offset, zoned, why := rest.zone()
	switch {
	case why != "":
		return watermark.None, why
	case zoned:
		return atSecond(clock-offset, nanos)
	}
	z, local := f.zone()
	if !local {
		return watermark.None, whyNoZone
	}
	return atSecond(z.Instant(clock*1000)/1000, nanos)
}

// ParseText reads a time as text, as event times are read. The error is the rest of a sentence
// that begins with the text.
func ParseText(text string) (watermark.Time, error) {
	t, why := rfc3339.text([]byte(text))
	switch why {
	case "":
		return t, nil
	case whyNoZone:
		return t, ErrNoZone
	}
	return t, errors.New(why)
}

// ErrNoZone says that a time as text does not say of which time zone it is.
var ErrNoZone = errors.New(whyNoZone)

// atSecond returns a time, unless it is outside.
func atSecond(seconds, nanos int64) (watermark.Time, string) {
	const most, second = math.MaxInt64 / 1_000_000_000, 1_000_000_000
	switch {
	case seconds > most, seconds < -most-1,
		seconds == most && nanos > math.MaxInt64-most*second:
		return watermark.None, whyOutside
	case seconds < 0: // the first second of all begins outside
		seconds, nanos = seconds+1, nanos-second
		if nanos <= math.MinInt64-seconds*second {
			return watermark.None, whyOutside
		}
	}
	return watermark.Time(seconds*second + nanos), ""
}

// dateAndClock reads what a calendar and a clock show, as seconds since the clock's own
// 1970 began.
func (c *clockText) dateAndClock() (seconds, nanos int64, ok bool) {
	year, ok1 := c.digits(4)
	month, ok2 := c.after('-')
	day, ok3 := c.after('-')
	if !ok1 || !ok2 || !ok3 || !(c.skip('T') || c.skip('t') || c.skip(' ')) {
		return 0, 0, false
	}
	hour, ok1 := c.digits(2)
	if !ok1 {
		hour, ok1 = c.digits(1)
	}
	minute, ok2 := c.after(':')
	second := 0
	if ok3 = true; len(*c) > 0 && (*c)[0] == ':' {
		if second, ok3 = c.after(':'); ok3 {
			nanos, ok3 = c.fraction()
		}
	}
	if !ok1 || !ok2 || !ok3 || hour > 23 || minute > 59 || second > 60 {
		return 0, 0, false
	}
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if int(date.Month()) != month || date.Day() != day { // the 30th of February is the 2nd of March
		return 0, 0, false
	}
	return date.Unix() + int64(hour*3600+minute*60+second), nanos, true
}

// fraction reads the part of a second, if there is one.
func (c *clockText) fraction() (nanos int64, ok bool) {
	if !c.skip('.') && !c.skip(',') {
		return 0, true
	}
	read := 0
	for ; len(*c) > 0 && isDigit((*c)[0]); *c = (*c)[1:] {
		if read++; read <= 9 {
			nanos = nanos*10 + int64((*c)[0]-'0')
		}
	}
	for i := read; i < 9; i++ {
		nanos *= 10
	}
	return nanos, read > 0
}

// zone reads the rest: how many seconds the clock is ahead of UTC, if it says so.
func (c *clockText) zone() (offset int64, zoned bool, why string) {
	if c.names() {
		return 0, false, "" // nor does a name alone: which of two, where the clock is set back?
	}
	spaced := c.skip(' ')
	switch {
	case c.skip('Z'), c.skip('z'):
	case spaced && string(*c) == "UTC":
		return 0, true, ""
	case len(*c) > 0 && ((*c)[0] == '+' || (*c)[0] == '-'):
		if offset, why = c.offset(); why != "" {
			return 0, false, why
		}
	default:
		return 0, false, whyNotRFC3339
	}
	if !c.names() {
		return 0, false, whyNotRFC3339
	}
	return offset, true, ""
}

func (c *clockText) offset() (seconds int64, why string) {
	west := c.skip('-')
	if !west {
		c.skip('+')
	}
	hours, ok := c.digits(2)
	minutes, secs := 0, 0
	if ok && len(*c) > 0 && ((*c)[0] == ':' || isDigit((*c)[0])) {
		c.skip(':')
		minutes, ok = c.digits(2)
		if ok && len(*c) > 0 && (*c)[0] == ':' {
			secs, ok = c.after(':')
		}
	}
	switch {
	case !ok:
		return 0, whyNotRFC3339
	case hours > 23 || minutes > 59 || secs > 59:
		return 0, whyOffset
	}
	seconds = int64(hours*3600 + minutes*60 + secs)
	if west {
		seconds = -seconds
	}
	return seconds, ""
}

// names reads up to the end what stands in brackets behind an offset, such as
// [Europe/Paris] or [u-ca=iso8601], and reports whether it is nothing else. By RFC 9557 an
// exclamation mark asks not to be passed over.
func (c clockText) names() bool {
	for c.skip('[') {
		end := bytes.IndexByte(c, ']')
		if end <= 0 {
			return false
		}
		for _, b := range c[:end] {
			if !isDigit(b) && !isLetter(b) && strings.IndexByte("/_-+=.:~", b) < 0 {
				return false
			}
		}
		c = c[end+1:]
	}
	return len(c) == 0
}

// after reads two digits behind a separator.
func (c *clockText) after(separator byte) (n int, ok bool) {
	if !c.skip(separator) {
		return 0, false
	}
	return c.digits(2)
}

func (c *clockText) digits(count int) (n int, ok bool) {
	if len(*c) < count {
		return 0, false
	}
	for _, b := range (*c)[:count] {
		if !isDigit(b) {
			return 0, false
		}
		n = n*10 + int(b-'0')
	}
	*c = (*c)[count:]
	return n, true
}

func (c *clockText) skip(b byte) bool {
	if len(*c) == 0 || (*c)[0] != b {
		return false
	}
	*c = (*c)[1:]
	return true
}

func isDigit(b byte) bool  { return b >= '0' && b <= '9' }
func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
