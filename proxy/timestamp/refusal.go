package timestamp

import (
	"bytes"
	"fmt"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What a value says may be anybody's, for whoever names the wrong field names one with a
// password or an address in it. So a refusal says how long it is and of what kind, and which
// format would fit, which is what has to be known to mend it.

// refusal returns the rest of a sentence that begins with the place of a value: of what kind
// it is and why it is unusable in this format.
func (f format) refusal(value []byte, why string) string {
	if why == whyEmpty {
		return fmt.Sprintf("%s (read as %s)", why, f.shown())
	}
	return fmt.Sprintf("with %s %s (read as %s%s)", emit.KindOf(value), why, f.shown(), f.advice(value))
}

// refusalOf is refusal of a number that is not text.
func (f format) refusalOf(n int64, why string) string {
	return f.refusal(fmt.Appendf(nil, "%d", n), why)
}

// shown is what the format is called where it was not written, too.
func (f format) shown() format {
	if f == unwritten {
		return unixMillis
	}
	return f
}

// advice names the format that would fit a value which this one does not.
func (f format) advice(value []byte) string {
	if trimmed := bytes.TrimSpace(value); f != int64BE && len(trimmed) < len(value) && f.fits(trimmed) {
		return "; it has spaces or line breaks around it"
	}
	for _, other := range []format{rfc3339, unixSeconds, unixMillis, unixMicros, unixNanos, int64BE} {
		if other != f.shown() && other.fits(value) {
			return fmt.Sprintf("; as %s it would fit", other)
		}
	}
	if _, why := rfc3339.time(value); why == whyNoZone {
		return "; " + localPrefix + "ZONE says which, like " + localPrefix + "Europe/Paris or " + localPrefix + "UTC"
	}
	return ""
}

// fits reports whether a value makes sense in this format: most numbers are times in all of
// them, but no more than one of these is in our time.
func (f format) fits(value []byte) bool {
	const first, last = 631_152_000_000, 4_102_444_800_000 // ms, from 1990 up to 2100
	t, why := f.time(value)
	if why != "" || f == int64BE && emit.IsText(value) {
		return false
	}
	return t >= watermark.Time(first*1_000_000) && t < watermark.Time(last*1_000_000)
}
