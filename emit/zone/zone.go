// Package zone knows the wall clocks of time zones, from a database of its own.
package zone

import (
	"archive/zip"
	_ "embed"
	"io"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// zoneinfo is the time zone database, 2025c as it comes with Go 1.26.8
// (lib/time/zoneinfo.zip, in the public domain). A machine's own is not asked,
// though package time would prefer it: two sidecars of one group, on machines
// that have been updated at different times, would put one event into different
// windows, or read another time out of it.
//
//go:embed zoneinfo.zip
var zoneinfo string

// Zone is a time zone's wall clock. A nil Zone is UTC.
type Zone struct {
	// Eras are the stretches of time in which the clock is ahead of UTC by the same
	// amount, in their order; the first has no beginning, the last no end.
	Eras []Era
}

// Era begins at an instant, in ms, and lasts until the next one begins. Ahead of UTC are
// so many ms.
type Era struct{ From, Ahead int64 }

// furthest is more than a clock was ever set forward or back, or is ahead of UTC:
// Samoa left out a day, Alaska had one twice.
const furthest = 48 * int64(time.Hour/time.Millisecond)

// Load returns the zone of a name of the database, or nil.
func Load(name string) *Zone {
	location := locate(name)
	if location == nil {
		return nil
	}
	return fromLocation(location)
}

// locate returns a zone of the database as package time has it, or nil.
func locate(name string) *time.Location {
	data := zoneData(name)
	if data == nil {
		return nil
	}
	location, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		panic(err) // it is part of the program
	}
	return location
}

// zoneData returns a file of the database, or nil.
func zoneData(name string) []byte {
	all, err := zip.NewReader(strings.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		panic(err)
	}
	at := slices.IndexFunc(all.File, func(f *zip.File) bool { return f.Name == name && !f.FileInfo().IsDir() })
	if at < 0 {
		return nil
	}
	file, err := all.File[at].Open()
	if err != nil {
		panic(err)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		panic(err)
	}
	return data
}

// fromLocation goes from one change of the clock to the next, as package time tells of
// them. It also tells of some where nothing changes, and on the last day of a leap
// year of none that is still to come; then a day is gone on.
func fromLocation(location *time.Location) *Zone {
	ahead := func(s int64) int64 {
		_, seconds := time.Unix(s, 0).In(location).Zone()
		return int64(seconds) * 1000
	}
	const day = 24 * 60 * 60
	first, last := watermark.None.Millis()/1000-4*day, watermark.Max.Millis()/1000+4*day
	z := &Zone{[]Era{{math.MinInt64, ahead(first)}}}
	for s := first; s < last; {
		_, end := time.Unix(s, 0).In(location).ZoneBounds()
		if end.IsZero() {
			break
		}
		next := min(end.Unix(), last)
		if next <= s {
			next = s + day
		}
		if was := ahead(s); was != ahead(next) {
			after := sort.Search(int(next-s)-1, func(i int) bool { return ahead(s+1+int64(i)) != was })
			z.Eras = append(z.Eras, Era{(s + 1 + int64(after)) * 1000, ahead(next)})
		}
		s = next
	}
	return z
}

// at returns the index of the era of an instant.
func (z *Zone) at(ms int64) int {
	after := sort.Search(len(z.Eras), func(i int) bool { return z.Eras[i].From > ms })
	return max(after-1, 0)
}

// Reached returns the latest that the clock has shown up to an instant, in ms
// since its 1970 began. Where it is set back it stays until it is made good.
//
//	clock          ·····                  Reached        ·····
//	          ·····                                 ·····
//	     ·····╷   ·····                        ·····────·
//	·····     set back                    ·····
func (z *Zone) Reached(ms int64) int64 {
	if z == nil {
		return ms
	}
	i := z.at(ms)
	clock := ms + z.Eras[i].Ahead
	for ; i > 0 && z.Eras[i].From > ms-furthest; i-- {
		clock = max(clock, z.Eras[i].From-1+z.Eras[i-1].Ahead)
	}
	return clock
}

// First returns the first instant at which the clock has reached a time: the
// earlier of the two where it is set back, the moment of the change where it is
// set forward over that time.
func (z *Zone) First(clock int64) int64 {
	if z == nil {
		return clock
	}
	for i := z.at(clock - furthest); ; i++ {
		ms := max(z.Eras[i].From, clock-z.Eras[i].Ahead)
		if i+1 == len(z.Eras) || ms < z.Eras[i+1].From {
			return ms
		}
	}
}

// Instant returns the instant at which the clock shows a time, in ms since its 1970 began, as
// java.time has it: the earlier of the two where the clock is set back over that time. Where
// it is set forward over it, it counts as if the clock had not been set yet, so that it lies
// as far behind the change as it would have.
//
//	clock  02:30 shown twice            02:30 never shown
//	        ╱ ╱                             ╱
//	       ╱ ╱│                          ╱ │ 03:00
//	      ╱   ▲ not this one            ╱┄┄▲ as if still on the clock of before
//	     ▲ this one
func (z *Zone) Instant(clock int64) int64 {
	if z == nil {
		return clock
	}
	for i := z.at(clock - furthest); ; i++ {
		if i+1 == len(z.Eras) || clock-z.Eras[i].Ahead < z.Eras[i+1].From {
			if i > 0 && clock-z.Eras[i].Ahead < z.Eras[i].From {
				i-- // never shown
			}
			return clock - z.Eras[i].Ahead
		}
	}
}

// Names returns all names of the database.
func Names() (names []string) {
	all, err := zip.NewReader(strings.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		panic(err)
	}
	for _, f := range all.File {
		if !f.FileInfo().IsDir() {
			names = append(names, f.Name)
		}
	}
	return names
}
