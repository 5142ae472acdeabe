package window

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit/zone"
)

// What is written as a header on every record has to stay small: one that is in
// sixty windows has sixty pairs of times. Flink stops at ten million.
const (
	MaxFamilies = 8
	MaxWindows  = 64 // of all families together
)

// maxDays is the longest that a size, a slide or an offset may be.
const maxDays = 36500

// Error is what is wrong with how windows were written.
type Error struct{ problem, hint string }

func (e *Error) Error() string { return e.problem }

// Hint says what to write instead. It may be empty.
func (e *Error) Hint() string { return e.hint }

const (
	hintFamilies = "known: tumbling:SIZE[+OFFSET][@ZONE], hopping:SIZE/SLIDE[+OFFSET][@ZONE], sliding:SIZE"
	hintDuration = "a number with its unit, like 90s, 15m, 1h30m or 7d"
	hintZone     = "a name of the time zone database, like Europe/Berlin"
)

// Parse reads a comma-separated list of families:
//
//	tumbling:SIZE[±OFFSET][@ZONE]
//	hopping:SIZE/SLIDE[±OFFSET][@ZONE]
//	sliding:SIZE
//
// Sizes, slides and offsets are whole milliseconds, written as Go writes
// durations and with d for days. The error joins an *Error for every fault.
func Parse(text string) (Set, error) {
	var set Set
	var errs []error
	for entry := range strings.SplitSeq(text, ",") {
		f, err := ParseFamily(strings.TrimSpace(entry))
		if err == nil {
			err = set.clash(f)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set = append(set, f)
	}
	switch n := set.Most(); {
	case len(errs) > 0:
		return nil, errors.Join(errs...)
	case len(set) > MaxFamilies:
		return nil, errors.Join(&Error{fmt.Sprintf("%d kinds of windows are more than %d", len(set), MaxFamilies), ""})
	case n > MaxWindows:
		return nil, errors.Join(&Error{
			fmt.Sprintf("every record would be in %d windows, each written into its headers; the maximum is %d", n, MaxWindows),
			"make them begin less often, or combine shorter ones in the consumer",
		})
	}
	return set, nil
}

// clash refuses windows that are there already, in the same or in other words.
func (s Set) clash(f *Family) error {
	for _, g := range s {
		if f.same(g) {
			return &Error{fmt.Sprintf("%q are the same windows as %q", f.name, g.name), ""}
		}
	}
	return nil
}

func (f *Family) same(g *Family) bool {
	return f.size == g.size && f.slide == g.slide && f.offset == g.offset && f.zoneName() == g.zoneName()
}

func (f *Family) zoneName() string {
	_, name, _ := strings.Cut(f.name, "@")
	return name
}

// ParseFamily reads one family. The error is an *Error.
func ParseFamily(text string) (*Family, error) {
	f := &Family{name: text}
	kind, rest, _ := strings.Cut(text, ":")
	rest, place, zoned := strings.Cut(rest, "@")
	size, offset := rest, ""
	if at := strings.IndexAny(rest, "+-"); at >= 0 {
		size, offset = rest[:at], rest[at:]
	}
	size, slide, slides := strings.Cut(size, "/")
	switch {
	case kind != "tumbling" && kind != "hopping" && kind != "sliding":
		return nil, f.fault("unknown kind of windows", hintFamilies)
	case kind == "sliding" && (slides || offset != "" || zoned):
		return nil, f.fault("a sliding window ends at its record, so all it has is a size",
			"like sliding:30s; windows that begin at fixed times are hopping:SIZE/SLIDE")
	case kind == "tumbling" && slides:
		return nil, f.fault("a tumbling window begins where the one before it ends", "windows that overlap are hopping:SIZE/SLIDE")
	case kind == "hopping" && !slides:
		return nil, f.fault("how often a window begins is missing", "like hopping:5m/1m")
	}
	var err error
	if f.size, err = f.length("size", size); err != nil {
		return nil, err
	}
	if kind == "sliding" {
		return f, nil
	}
	f.slide = f.size
	if slides {
		if f.slide, err = f.length("slide", slide); err != nil {
			return nil, err
		}
	}
	if err := f.shift(offset); err != nil {
		return nil, err
	}
	switch {
	case f.slide > f.size:
		return nil, f.fault("a window would begin after the end of the one before it, and records in between would be in none",
			"hopping:SIZE/SLIDE, with the longer first")
	case f.Most() > MaxWindows: // before the zone is looked for
		return nil, f.fault(fmt.Sprintf("every record would be in %d windows, each written into its headers; the maximum is %d", f.Most(), MaxWindows),
			"make them begin less often, or combine shorter ones in the consumer")
	}
	if zoned {
		if f.zone = zone.Load(place); f.zone == nil {
			return nil, f.fault(fmt.Sprintf("%q is no time zone", place), hintZone)
		}
	}
	return f, nil
}

func (f *Family) fault(problem, hint string) error {
	return &Error{fmt.Sprintf("%q: %s", f.name, problem), hint}
}

// length reads a size or a slide.
func (f *Family) length(what, text string) (ms int64, err error) {
	ms, ok := millis(text)
	switch {
	case !ok:
		return 0, f.fault(fmt.Sprintf("the %s %q is no duration of whole milliseconds up to %dd", what, text, maxDays), hintDuration)
	case ms == 0:
		return 0, f.fault(fmt.Sprintf("the %s is not above 0", what), hintDuration)
	}
	return ms, nil
}

// shift reads an offset with its sign.
func (f *Family) shift(text string) error {
	if text == "" {
		return nil
	}
	ms, ok := millis(text[1:])
	switch {
	case !ok:
		return f.fault(fmt.Sprintf("the offset %q is no duration of whole milliseconds", text), hintDuration)
	case ms >= f.slide: // Flink asks for the same
		return f.fault("the offset is not less than the time from one window to the next", "windows repeat: leave out whole ones")
	}
	f.offset = ms
	if text[0] == '-' {
		f.offset = -ms
	}
	return nil
}

// millis reads a duration without sign.
func millis(text string) (ms int64, ok bool) {
	days, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || n > maxDays {
		return 0, false
	}
	d := time.Duration(0)
	if rest != "" || !hasDays {
		if d, err = time.ParseDuration(rest); err != nil || strings.ContainsAny(rest, "+-") {
			return 0, false
		}
	}
	const day = 24 * time.Hour
	if d%time.Millisecond != 0 || d > maxDays*day-time.Duration(n)*day {
		return 0, false
	}
	return int64(n)*day.Milliseconds() + d.Milliseconds(), true
}
