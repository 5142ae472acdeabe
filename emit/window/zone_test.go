package window

import (
	"archive/zip"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func instant(t testing.TB, text string) int64 {
	t.Helper()
	when, err := time.Parse("2006-01-02T15:04Z07:00", text)
	if err != nil {
		t.Fatal(err)
	}
	return when.UnixMilli()
}

// A day, a shift, an hour of a zone, around the changes of its clock: when the
// windows begin and end, in UTC.
func TestZones(t *testing.T) {
	for _, c := range []struct{ family, at, want, why string }{
		{"tumbling:1d@Europe/Berlin", "2026-01-15T12:00Z", "2026-01-14T23:00Z 2026-01-15T23:00Z", "winter"},
		{"tumbling:1d@Europe/Berlin", "2026-07-15T12:00Z", "2026-07-14T22:00Z 2026-07-15T22:00Z", "summer"},
		{"tumbling:1d@Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z 2026-03-29T22:00Z", "23 hours"},
		{"tumbling:1d@Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z 2026-10-25T23:00Z", "25 hours"},
		{"tumbling:24h@Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z 2026-10-25T23:00Z", "24 hours of the clock are a day"},
		{"tumbling:1d", "2026-10-25T12:00Z", "2026-10-25T00:00Z 2026-10-26T00:00Z", "without a zone days are UTC's"},
		{"tumbling:1d@UTC", "2026-10-25T12:00Z", "2026-10-25T00:00Z 2026-10-26T00:00Z", "UTC is a zone, too"},
		{"tumbling:1d-8h", "2026-10-25T12:00Z", "2026-10-24T16:00Z 2026-10-25T16:00Z", "Flink's way to say Asia/Shanghai"},
		{"tumbling:1d@Asia/Shanghai", "2026-10-25T12:00Z", "2026-10-24T16:00Z 2026-10-25T16:00Z", "the same"},
		{"tumbling:1d+6h@Europe/Berlin", "2026-10-25T12:00Z", "2026-10-25T05:00Z 2026-10-26T05:00Z", "a day that begins at six"},
		{"tumbling:1d+6h@Europe/Berlin", "2026-10-25T02:00Z", "2026-10-24T04:00Z 2026-10-25T05:00Z", "and the one before it, with 25 hours"},
		{"tumbling:7d+4d@Europe/Berlin", "2026-03-29T12:00Z", "2026-03-22T23:00Z 2026-03-29T22:00Z", "a week from Monday"},
		{"hopping:2d/1d@Europe/Berlin", "2026-10-25T12:00Z", "2026-10-23T22:00Z 2026-10-25T23:00Z 2026-10-24T22:00Z 2026-10-26T23:00Z", "two days, 49 hours both"},

		{"tumbling:1h@Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T00:00Z 2026-10-25T02:00Z", "the hour that comes twice is one window"},
		{"tumbling:1h@Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T00:00Z 2026-10-25T02:00Z", "both times"},
		{"tumbling:1h@Europe/Berlin", "2026-03-29T01:30Z", "2026-03-29T01:00Z 2026-03-29T02:00Z", "the hour that is left out has no window"},
		{"tumbling:4h@America/Los_Angeles", "2021-03-14T09:00Z", "2021-03-14T08:00Z 2021-03-14T11:00Z", "Flink's example: 00:00 to 04:00 has three hours"},
		{"tumbling:6h@Europe/Berlin", "2026-10-25T00:30Z", "2026-10-24T22:00Z 2026-10-25T05:00Z", "from 00:00 to 06:00 seven hours"},
		{"tumbling:6h@Europe/Berlin", "2026-03-29T00:30Z", "2026-03-28T23:00Z 2026-03-29T04:00Z", "five"},
		{"tumbling:2h@Europe/Berlin", "2026-03-29T01:30Z", "2026-03-29T01:00Z 2026-03-29T02:00Z", "from 02:00, when it was already 03:00, to 04:00"},
		{"tumbling:1h@Asia/Kolkata", "2026-03-29T12:00Z", "2026-03-29T11:30Z 2026-03-29T12:30Z", "hours of a clock that is half an hour off"},

		{"tumbling:1d@America/Havana", "2025-11-02T12:00Z", "2025-11-02T04:00Z 2025-11-03T05:00Z", "midnight comes twice; the day begins with the first"},
		{"tumbling:1d@America/Havana", "2025-11-02T04:30Z", "2025-11-02T04:00Z 2025-11-03T05:00Z", "it is the day's from then on"},
		{"tumbling:1d@America/Havana", "2025-03-09T12:00Z", "2025-03-09T05:00Z 2025-03-10T04:00Z", "midnight is left out; the day begins at 01:00"},
		{"tumbling:1d@America/St_Johns", "2010-11-07T03:00Z", "2010-11-07T02:30Z 2010-11-08T03:30Z", "set back over midnight: the day has begun and stays"},
		{"tumbling:1d@Pacific/Apia", "2011-12-30T09:59Z", "2011-12-29T10:00Z 2011-12-30T10:00Z", "the 29th"},
		{"tumbling:1d@Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z 2011-12-31T10:00Z", "the 31st: there was no 30th"},
		{"tumbling:1d@America/Juneau", "1867-10-19T12:00Z", "1867-10-18T08:57Z 1867-10-20T08:57Z", "a day that came twice"},
		{"tumbling:1d@Europe/Berlin", "2200-07-15T12:00Z", "2200-07-14T22:00Z 2200-07-15T22:00Z", "by the rule of today"},
	} {
		f := family(t, c.family)
		ws, _ := f.Append(nil, at(instant(t, c.at)))
		var got []string
		for _, w := range ws {
			for _, ms := range []int64{w.Start, w.End} {
				got = append(got, time.UnixMilli(ms).UTC().Format("2006-01-02T15:04Z07:00"))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s at %s (%s): %v, want %s", c.family, c.at, c.why, got, c.want)
		}
	}
}

// zones that between them have every oddity.
var oddZones = []string{
	"Europe/Berlin", "America/Havana", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca", "Europe/Dublin",
	"Australia/Lord_Howe", "Antarctica/Troll", "Asia/Gaza", "America/Juneau", "UTC",
}

// wallClock is what a zone's clock shows, from the package that is made for it.
func wallClock(location *time.Location, ms int64) int64 {
	_, seconds := time.UnixMilli(ms).In(location).Zone()
	return ms + int64(seconds)*1000
}

// TestZoneIsItsClock: reached is the maximum of what the clock has shown, and
// first its inverse, minute by minute around the changes of the clock.
func TestZoneIsItsClock(t *testing.T) {
	const minute = 60_000
	for _, name := range oddZones {
		z, l := loadZone(name), locate(name)
		for _, e := range z.eras[1:] {
			if e.from < 0 || e.from > 2_200_000_000_000 {
				continue // before 1970 clocks were off by odd seconds, and after 2039 nothing is new
			}
			most := wallClock(l, e.from-30*60*minute)
			for ms := e.from - 30*60*minute; ms < e.from+30*60*minute; ms += minute {
				was := most
				if most = max(most, wallClock(l, ms)); z.reached(ms)/minute != most/minute {
					t.Fatalf("%s at %d: reached %d, want %d", name, ms, z.reached(ms), most)
				}
				if most > was && ms > e.from-26*60*minute { // all times up to most are first shown now
					if got := z.first(most); got != ms {
						t.Fatalf("%s: %d is first shown at %d, want %d", name, most, got, ms)
					}
				}
			}
		}
	}
}

// TestZonedWindows: in any zone windows are side by side as on the wall clock,
// and hold the times between their ends and no others.
func TestZonedWindows(t *testing.T) {
	zones := map[string]*zone{}
	for _, name := range oddZones {
		zones[name] = loadZone(name)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(oddZones).Draw(t, "zone")
		z := zones[name]
		slide := rapid.SampledFrom([]int64{900_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000}).Draw(t, "slide")
		f := &Family{zone: z, slide: slide, size: slide * rapid.Int64Range(2, 9).Draw(t, "halves") / 2}
		f.offset = rapid.Int64Range(1-slide, slide-1).Draw(t, "offset")
		near := z.eras[rapid.IntRange(0, len(z.eras)-1).Draw(t, "era")].from
		ms := max(near, -9_000_000_000_000) + rapid.Int64Range(-200_000_000, 200_000_000).Draw(t, "ms")
		ws, s := f.Append(nil, at(ms))
		if len(ws) == 0 || ms < s.Start || ms >= s.End {
			t.Fatalf("%s at %d: %s in %v", name, ms, shown(ws), s)
		}
		for _, w := range ws {
			if ms < w.Start || ms >= w.End {
				t.Fatalf("%s at %d: %s", name, ms, shown(ws))
			}
			for _, other := range []int64{w.Start - 1, w.Start, w.End - 1, w.End} {
				in, _ := f.Append(nil, at(other))
				if inside := other >= w.Start && other < w.End; slices.Contains(in, w) != inside {
					t.Fatalf("%s: %d is in %s, and %d in %s", name, ms, shown(ws), other, shown(in))
				}
			}
		}
		for _, edge := range []int64{s.Start - 1, s.Start, s.End - 1, s.End} {
			in, _ := f.Append(nil, at(edge))
			if inside := edge >= s.Start && edge < s.End; slices.Equal(in, ws) != inside {
				t.Fatalf("%s: %d has %s, %d has %s, the stretch is %v", name, ms, shown(ws), edge, shown(in), s)
			}
		}
	})
}

// TestZoneinfoIsOurs: it is not the machine that says what a zone is, even if it
// takes Berlin for Tokyo.
func TestZoneinfoIsOurs(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("ZONEINFO", dir)
	if err := os.Mkdir(filepath.Join(dir, "Europe"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Europe", "Berlin"), zoneData("Asia/Tokyo"), 0o644); err != nil {
		t.Fatal(err)
	}
	machine, err := time.LoadLocation("Europe/Berlin")
	if err != nil || wallClock(machine, 0) != 9*3_600_000 {
		t.Fatalf("the machine is not fooled: %v", err)
	}
	if got := loadZone("Europe/Berlin").reached(0); got != 3_600_000 {
		t.Errorf("Berlin is %d ms ahead", got)
	}
	for _, name := range []string{"", "Local", "Europe", "Europe/", "../Europe/Berlin", "europe/berlin", "Europe/Bonn"} {
		if loadZone(name) != nil {
			t.Errorf("%q is a zone", name)
		}
	}
}

// everyDay looks at every day there is. No clock was ever changed and changed back
// within a day.
func everyDay(location *time.Location) *zone {
	ahead := func(s int64) int64 { return wallClock(location, s*1000) - s*1000 }
	const day, end = 24 * 60 * 60, 9_223_372_036 + 4*24*60*60
	z := &zone{[]era{{math.MinInt64, ahead(-end)}}}
	for s := int64(-end); s < end; s += day {
		if was, is := ahead(s), ahead(s+day); was != is {
			change := s
			for step := int64(day); step > 0; step /= 2 {
				for change+step <= s+day && ahead(change+step) == was {
					change += step
				}
			}
			z.eras = append(z.eras, era{(change + 1) * 1000, is})
		}
	}
	return z
}

// TestEveryZone: all of the database can be read and is read right, and no clock
// was ever changed by more than what is allowed for.
func TestEveryZone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	all, err := zip.NewReader(strings.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all.File {
		if file.FileInfo().IsDir() {
			continue
		}
		z, twin := loadZone(file.Name), everyDay(locate(file.Name))
		if !slices.Equal(z.eras, twin.eras) {
			t.Errorf("%s: %d eras, want %d", file.Name, len(z.eras), len(twin.eras))
		}
		for i, e := range z.eras {
			if e.ahead <= -furthest/2 || e.ahead >= furthest/2 {
				t.Errorf("%s is %d ms ahead", file.Name, e.ahead)
			}
			if i > 0 && (e.ahead-z.eras[i-1].ahead > furthest/2 || z.eras[i-1].ahead-e.ahead > furthest/2) {
				t.Errorf("%s is changed by more than a day at %d", file.Name, e.from)
			}
		}
	}
}

func BenchmarkZone(b *testing.B) {
	for b.Loop() {
		loadZone("Europe/Berlin")
	}
}
