package timestamp

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkhq/tidemark/emit/zone"
	"github.com/tidemarkhq/tidemark/watermark"
)

// format says how bytes spell a time.
//
// The decimal formats are an optional minus sign, digits, and (all but
// unix-ns) an optional fraction after a point; digits beyond a nanosecond are
// rounded down. No sign, space or exponent besides. Times before 1970 are as
// good as any other, as long as int64 nanoseconds can hold them (September
// 1677 to April 2262).
type format string

const (
	unwritten   format = "" // of a field with a schema: what that does not say is unix-ms
	unixSeconds format = "unix-s"
	unixMillis  format = "unix-ms" // text as in rfc3339 is recognised too
	unixMicros  format = "unix-us"
	unixNanos   format = "unix-ns"
	rfc3339     format = "rfc3339"
	// int64BE is 8 bytes, the most significant first: ms since the epoch, as
	// ByteBuffer.putLong and Kafka's own LongSerializer write them.
	int64BE format = "int64-be"
	// localPrefix is that of a format which is followed by a time zone: text as in
	// rfc3339, and what has no zone is of this one.
	localPrefix = "local:"
)

var formats = []format{unixMillis, unixSeconds, unixMicros, unixNanos, rfc3339, int64BE}

// Why a value is unusable: words that fit behind "header x with value ...".
const (
	whyEmpty      = "is empty"
	whyNotDecimal = "is not a decimal number"
	whyNotMillis  = "is neither decimal milliseconds nor RFC 3339"
	whyNotRFC3339 = "is not RFC 3339 (like 2006-01-02T15:04:05.999Z)"
	whyNoZone     = "does not say of which time zone it is"
	whyOffset     = "has an impossible offset from UTC"
	whyNot8Bytes  = "is not 8 bytes long"
	whyOutside    = "is outside the years 1678 to 2262"
	whyNumber     = "is not text"
)

// zones are those that formats have named, by their names. They are loaded when a
// format is parsed, and none is ever forgotten: there are 600.
var (
	zones     atomic.Pointer[map[string]*zone.Zone]
	loadZones sync.Mutex
)

// zoneNamed returns a zone of the database, or nil.
func zoneNamed(name string) *zone.Zone {
	if known := zones.Load(); known != nil && (*known)[name] != nil {
		return (*known)[name]
	}
	z := zone.Load(name)
	if z == nil {
		return nil
	}
	loadZones.Lock()
	defer loadZones.Unlock()
	more := map[string]*zone.Zone{name: z}
	if known := zones.Load(); known != nil {
		for n, other := range *known {
			more[n] = other
		}
	}
	zones.Store(&more)
	return z
}

// zone returns the time zone that the format names, if it does.
func (f format) zone() (z *zone.Zone, local bool) {
	name, local := strings.CutPrefix(string(f), localPrefix)
	if !local {
		return nil, false
	}
	if z = zoneNamed(name); z == nil {
		panic("timestamp: unknown zone " + name)
	}
	return z, true
}

func (f format) isLocal() bool { return strings.HasPrefix(string(f), localPrefix) }

// onClock returns when the clock of the zone that the format names, if it does, shows what
// that of UTC shows at t.
func (f format) onClock(t watermark.Time) (watermark.Time, string) {
	z, local := f.zone()
	if !local {
		return t, ""
	}
	ms := t.Millis()
	rest := t % watermark.Time(time.Millisecond)
	if rest < 0 {
		rest += watermark.Time(time.Millisecond)
	}
	at, ok := watermark.FromMillis(z.Instant(ms))
	if !ok || at > watermark.Max-rest {
		return watermark.None, whyOutside
	}
	return at + rest, ""
}

// places says of a number in this format that its unit is 10^places ns.
func (f format) places() (places int, ok bool) {
	switch f {
	case unixSeconds:
		return 9, true
	case unixMillis, unwritten:
		return 6, true
	case unixMicros:
		return 3, true
	case unixNanos:
		return 0, true
	}
	return 0, false
}

// number returns the time of a number as JSON writes them: unlike decimal, with
// an exponent too, for many a library writes 1.7e12 where it was given a float.
func (f format) number(raw []byte) (watermark.Time, string) {
	places, ok := f.places()
	if !ok {
		return watermark.None, whyNumber
	}
	if i := bytes.IndexAny(raw, "eE"); i >= 0 {
		return scientific(raw[:i], raw[i+1:], places)
	}
	return decimal(raw, places)
}

// integer returns the time of a number that is not text.
func (f format) integer(n int64) (watermark.Time, string) {
	places, ok := f.places()
	if !ok {
		return watermark.None, whyNumber
	}
	unit := int64(pow10[places])
	ns := n * unit
	if ns/unit != n || ns == int64(watermark.None) {
		return watermark.None, whyOutside
	}
	return watermark.Time(ns), ""
}

// time returns the time that value spells, or why it spells none.
func (f format) time(value []byte) (t watermark.Time, why string) {
	if len(value) == 0 {
		return watermark.None, whyEmpty
	}
	switch f {
	case unixMillis, unwritten:
		return millisOrText(value)
	case unixSeconds:
		return decimal(value, 9)
	case unixMicros:
		return decimal(value, 3)
	case unixNanos:
		return decimal(value, 0)
	case int64BE:
		return bigEndian(value)
	}
	return f.text(value)
}

// millisOrText reads decimal milliseconds, and text if that is what the value looks
// like: behind the date stands what no decimal number has.
func millisOrText(value []byte) (watermark.Time, string) {
	if len(value) > 10 && (value[10]|0x20 == 't' || value[10] == ' ') {
		return unixMillis.text(value)
	}
	t, why := decimal(value, 6)
	if why == whyNotDecimal {
		why = whyNotMillis
	}
	return t, why
}

var pow10 = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// decimal reads a number whose unit is 10^places ns, in integers throughout: a
// float64 has no room for today's nanoseconds.
func decimal(value []byte, places int) (watermark.Time, string) {
	digits, negative := bytes.CutPrefix(value, []byte("-"))
	n, rest := leadingDigits(digits)
	fraction, ok := nanos(rest, places, negative)
	if !ok || len(rest) == len(digits) {
		return watermark.None, whyNotDecimal
	}
	over, n := bits.Mul64(n, pow10[places])
	if over > 0 || n > math.MaxInt64-fraction {
		return watermark.None, whyOutside
	}
	t := watermark.Time(n + fraction)
	if negative {
		t = -t
	}
	return t, ""
}

// scientific reads mantissa * 10^exponent in units of 10^places ns, exactly: it
// takes the digits as they come, up to the place where nanoseconds end.
func scientific(mantissa, exponent []byte, places int) (watermark.Time, string) {
	digits, negative := bytes.CutPrefix(mantissa, []byte("-"))
	shift, ok := exponentOf(exponent)
	whole, fraction, _ := bytes.Cut(digits, []byte("."))
	if !ok || len(whole) == 0 {
		return watermark.None, whyNotDecimal
	}
	shift += places + len(whole) // digits before nanoseconds end
	var n uint64
	rounded := false
	at := 0
	for _, part := range [2][]byte{whole, fraction} {
		for _, c := range part {
			switch {
			case c < '0' || c > '9':
				return watermark.None, whyNotDecimal
			case at < shift:
				n = min(n, (math.MaxUint64-9)/10)*10 + uint64(c-'0')
			case c != '0':
				rounded = true
			}
			at++
		}
	}
	for ; at < shift && n > 0 && n <= math.MaxInt64; at++ {
		n = min(n, math.MaxUint64/10) * 10
	}
	if negative && rounded {
		n++
	}
	if n > math.MaxInt64 {
		return watermark.None, whyOutside
	}
	if negative {
		return -watermark.Time(n), ""
	}
	return watermark.Time(n), ""
}

// exponentOf reads an exponent. One with more than five digits shifts anything
// out of sight.
func exponentOf(text []byte) (n int, ok bool) {
	negative := len(text) > 0 && text[0] == '-'
	if negative || len(text) > 0 && text[0] == '+' {
		text = text[1:]
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), 99_999)
	}
	if negative {
		n = -n
	}
	return n, len(text) > 0
}

// leadingDigits returns the number that b begins with, and what follows it. A
// number too large comes back as one above math.MaxInt64. It is written out
// because every record passes here: strconv, with its own look at the sign and
// an error on the heap for "1.5", takes more than twice as long.
func leadingDigits(b []byte) (n uint64, rest []byte) {
	const (
		most    = (math.MaxUint64 - 9) / 10 // one more digit still fits
		fitting = 19                        // digits that always do
	)
	for i, c := range b {
		if c < '0' || c > '9' {
			return n, b[i:]
		}
		if i >= fitting {
			n = min(n, most)
		}
		n = n*10 + uint64(c-'0')
	}
	return n, nil
}

// nanos reads a fraction with its point as nanoseconds. Digits for which there
// is no room are rounded down, which in the magnitude of a negative number is
// up.
func nanos(point []byte, places int, negative bool) (n uint64, ok bool) {
	if len(point) == 0 {
		return 0, true
	}
	if places == 0 || point[0] != '.' || len(point) == 1 {
		return 0, false
	}
	end := min(1+places, len(point))
	n, rest := leadingDigits(point[1:end])
	more, rest2 := leadingDigits(point[end:])
	n *= pow10[1+places-end]
	if negative && more > 0 {
		n++
	}
	return n, len(rest)+len(rest2) == 0
}

func bigEndian(value []byte) (watermark.Time, string) {
	if len(value) != 8 {
		return watermark.None, whyNot8Bytes
	}
	t, ok := watermark.FromMillis(int64(binary.BigEndian.Uint64(value)))
	if !ok {
		return watermark.None, whyOutside
	}
	return t, ""
}
