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

// advice says what would make a value fit: another format, or less around it.
func (f format) advice(value []byte) string {
	if inner := bytes.TrimSpace(value); f != int64BE && len(inner) < len(value) && f.fits(inner) {
		return "; it has spaces or line breaks around it"
	}
	if inner, how := withoutQuotes(value); f != int64BE && how != "" {
		if f.fits(inner) {
			return "; " + how
		}
		if other, ok := f.fitting(inner); ok {
			return fmt.Sprintf("; %s, without which it would fit as %s", how, other)
		}
	}
	if other, ok := f.fitting(value); ok {
		return fmt.Sprintf(wouldFit, other)
	}
	if _, why := rfc3339.time(value); why == whyNoZone {
		return "; " + localPrefix + "ZONE says which, like " + localPrefix + "Europe/Paris or " + localPrefix + "UTC"
	}
	return ""
}

const wouldFit = "; as %s it would fit"

// fitting returns another format that fits a value. Of the numeric ones no more than one does.
func (f format) fitting(value []byte) (other format, ok bool) {
	for _, other := range []format{rfc3339, unixSeconds, unixMillis, unixMicros, unixNanos, int64BE} {
		if other != f.shown() && other.fits(value) {
			return other, true
		}
	}
	return "", false
}

// quotes are the marks that text is put between, of keyboards and of word processors.
const quotes = "\"'`\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a\u2033\u2032"

// withoutQuotes leaves out the quotes, and says where they are: in words that follow a value,
// empty if there are none.
func withoutQuotes(value []byte) (inner []byte, how string) {
	left := bytes.TrimLeft(value, quotes)
	inner = bytes.TrimRight(left, quotes)
	switch before, behind := len(left) < len(value), len(inner) < len(left); {
	case before && behind:
		return inner, "it is in quotes"
	case before:
		return inner, "it has a quote before it and none behind it"
	case behind:
		return inner, "it has a quote behind it and none before it"
	}
	return value, ""
}

// fits reports whether a value makes sense in this format: most numbers are times in all of
// them, but no more than one of these is in our time.
func (f format) fits(value []byte) bool {
	t, why := f.time(value)
	if why != "" || f == int64BE && emit.IsText(value) {
		return false
	}
	return t >= firstLikely && t < lastLikely
}

// Event times are likely to be from 1990 up to 2100.
const firstLikely, lastLikely watermark.Time = 631_152_000 * 1e9, 4_102_444_800 * 1e9
