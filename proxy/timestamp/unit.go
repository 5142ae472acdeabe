package timestamp

import (
	"fmt"
	"math"
)

// unitNames are the units of numbers, by the power of ten of their nanoseconds.
var unitNames = map[int]string{9: "seconds", 6: "milliseconds", 3: "microseconds", 0: "nanoseconds"}

// Change says how event times are changed, to what is to be set: what is held was judged by the
// ones of before, and is not taken up with others. Without sources it is for the user to know.
func Change(sources string) string {
	if sources != "" {
		sources = "=" + sources
	}
	return BeginAnew("set TIDEMARK_EVENT_TIME" + sources)
}

// BeginAnew says how the order begins anew, with what is to be done before it.
func BeginAnew(before string) string {
	return "stop, " + before + ", run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"
}

// TooSmall says what a source's times probably are that are too small by a factor, a power
// of 1000, and what to do about it. It is for a source whose times have been read.
func (e *Extractor) TooSmall(source int, factor int64) (what, cure string) {
	if source >= len(e.sources) {
		return "", ""
	}
	s := e.sources[source]
	f := formatOf(s)
	what, right, unit := f.tooSmall(s.place(), factor)
	if right == "" {
		return what, "check what producers write"
	}
	cure = Change(e.Instead(source, s.place()+":"+string(right)))
	switch s.(type) {
	case recordTimestamp:
		return what, "have producers set the timestamps of records in milliseconds, as Kafka has them; or, to take event times from another place, " + Change("")
	case *field:
		cure += "; if the schema says which unit it is, it is wrong: have producers write that unit"
	}
	if f == int64BE {
		cure = "have producers write milliseconds: there is no format for " + unit + " in 8 bytes"
	}
	return what, cure
}

// tooSmall says which format times are probably in that are too small by a factor in this
// one, and the name of its unit; without a format, there is none.
func (f format) tooSmall(place string, factor int64) (what string, right format, unit string) {
	places, ok := f.places()
	if !ok {
		places = 6
	}
	is := places + int(math.Round(math.Log10(float64(factor))))
	if right, ok = unitFormats[is]; !ok {
		return fmt.Sprintf("%s is too small by a factor of %d", place, factor), "", ""
	}
	return fmt.Sprintf("%s seems to have %s, and is read as %s", place, unitNames[is], unitNames[places]), right, unitNames[is]
}

// TooSmall says what a header's times probably are that are too small by a factor, a power of
// 1000, and what to do about it.
func (h Header) TooSmall(factor int64) (what, cure string) {
	what, right, unit := h.of.format.tooSmall("header "+h.of.name, factor)
	switch {
	case right == "":
		return what, "check what producers write"
	case h.of.format == int64BE:
		return what, "have producers write milliseconds: there is no format for " + unit + " in 8 bytes"
	}
	return what, "set TIDEMARK_WATERMARK_HEADER=" + h.of.name + ":" + string(right)
}

var unitFormats = map[int]format{9: unixSeconds, 6: unixMillis, 3: unixMicros}
