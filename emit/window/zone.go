package window

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
// windows.
//
//go:embed zoneinfo.zip
var zoneinfo string

// zone is a time zone's wall clock, as the stretches of time in which it is
// ahead of UTC by the same amount. A nil zone is UTC.
type zone struct{ eras []era }

// era begins at an instant, in ms, and lasts until the next one begins.
type era struct{ from, ahead int64 }

// furthest is more than a clock was ever set forward or back, or is ahead of UTC:
// Samoa left out a day, Alaska had one twice.
const furthest = 48 * int64(time.Hour/time.Millisecond)

// loadZone returns the zone of a name of the database, or nil.
func loadZone(name string) *zone {
	location := locate(name)
	if location == nil {
		return nil
	}
	return newZone(location)
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

// newZone goes from one change of the clock to the next, as package time tells of
// them. It also tells of some where nothing changes, and on the last day of a leap
// year of none that is still to come; then a day is gone on.
func newZone(location *time.Location) *zone {
	ahead := func(s int64) int64 {
		_, seconds := time.Unix(s, 0).In(location).Zone()
		return int64(seconds) * 1000
	}
	const day = 24 * 60 * 60
	first, last := watermark.None.Millis()/1000-4*day, watermark.Max.Millis()/1000+4*day
	z := &zone{[]era{{math.MinInt64, ahead(first)}}}
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
			z.eras = append(z.eras, era{(s + 1 + int64(after)) * 1000, ahead(next)})
		}
		s = next
	}
	return z
}

// at returns the index of the era of an instant.
func (z *zone) at(ms int64) int {
	after := sort.Search(len(z.eras), func(i int) bool { return z.eras[i].from > ms })
	return max(after-1, 0)
}

// reached returns the latest that the clock has shown up to an instant, in ms
// since its 1970 began. Where it is set back it stays until it is made good.
//
//	clock          ·····                  reached        ·····
//	          ·····                                 ·····
//	     ·····╷   ·····                        ·····────·
//	·····     set back                    ·····
func (z *zone) reached(ms int64) int64 {
	if z == nil {
		return ms
	}
	i := z.at(ms)
	clock := ms + z.eras[i].ahead
	for ; i > 0 && z.eras[i].from > ms-furthest; i-- {
		clock = max(clock, z.eras[i].from-1+z.eras[i-1].ahead)
	}
	return clock
}

// first returns the first instant at which the clock has reached a time: the
// earlier of the two where it is set back, the moment of the change where it is
// set forward over that time.
func (z *zone) first(clock int64) int64 {
	if z == nil {
		return clock
	}
	for i := z.at(clock - furthest); ; i++ {
		ms := max(z.eras[i].from, clock-z.eras[i].ahead)
		if i+1 == len(z.eras) || ms < z.eras[i+1].from {
			return ms
		}
	}
}
