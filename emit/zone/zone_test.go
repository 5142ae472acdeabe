package zone

import (
	"archive/zip"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

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
		z, l := Load(name), locate(name)
		for _, e := range z.Eras[1:] {
			if e.From < 0 || e.From > 2_200_000_000_000 {
				continue // before 1970 clocks were off by odd seconds, and after 2039 nothing is new
			}
			most := wallClock(l, e.From-30*60*minute)
			for ms := e.From - 30*60*minute; ms < e.From+30*60*minute; ms += minute {
				was := most
				if most = max(most, wallClock(l, ms)); z.Reached(ms)/minute != most/minute {
					t.Fatalf("%s at %d: reached %d, want %d", name, ms, z.Reached(ms), most)
				}
				if most > was && ms > e.From-26*60*minute { // all times up to most are first shown now
					if got := z.First(most); got != ms {
						t.Fatalf("%s: %d is first shown at %d, want %d", name, most, got, ms)
					}
				}
			}
		}
	}
}

// TestInstant has what java.time says (LocalDateTime.atZone in JDK 17).
func TestInstant(t *testing.T) {
	for _, c := range []struct{ zone, clock, want string }{
		{"Europe/Paris", "2025-03-30T01:59", "2025-03-30T00:59:00Z"},
		{"Europe/Paris", "2025-03-30T02:00", "2025-03-30T01:00:00Z"}, // never shown
		{"Europe/Paris", "2025-03-30T02:30", "2025-03-30T01:30:00Z"},
		{"Europe/Paris", "2025-03-30T03:00", "2025-03-30T01:00:00Z"},
		{"Europe/Paris", "2025-10-26T01:59", "2025-10-25T23:59:00Z"},
		{"Europe/Paris", "2025-10-26T02:00", "2025-10-26T00:00:00Z"}, // shown twice
		{"Europe/Paris", "2025-10-26T02:30", "2025-10-26T00:30:00Z"},
		{"Europe/Paris", "2025-10-26T03:00", "2025-10-26T02:00:00Z"},
		{"Pacific/Apia", "2011-12-30T12:00", "2011-12-30T22:00:00Z"}, // a day was left out
		{"Australia/Lord_Howe", "2025-10-05T02:15", "2025-10-04T15:45:00Z"},
		{"Australia/Lord_Howe", "2025-04-06T01:45", "2025-04-05T14:45:00Z"},
		{"Africa/Casablanca", "2026-02-15T02:30", "2026-02-15T01:30:00Z"},
		{"America/Havana", "2025-11-02T00:30", "2025-11-02T04:30:00Z"},
		{"America/New_York", "2025-07-01T12:00", "2025-07-01T16:00:00Z"},
		{"UTC", "2025-07-01T12:00", "2025-07-01T12:00:00Z"},
		{"Etc/GMT+5", "2025-07-01T12:00", "2025-07-01T17:00:00Z"},
		{"Asia/Kolkata", "2025-07-01T12:00", "2025-07-01T06:30:00Z"},
		{"Europe/Paris", "2200-07-01T12:00", "2200-07-01T10:00:00Z"}, // by the rule of today
		{"Europe/Paris", "1900-07-01T12:00", "1900-07-01T11:50:39Z"}, // local mean time
	} {
		clock, err := time.Parse("2006-01-02T15:04", c.clock)
		if err != nil {
			t.Fatal(err)
		}
		got := time.UnixMilli(Load(c.zone).Instant(clock.UnixMilli())).UTC().Format(time.RFC3339)
		if got != c.want {
			t.Errorf("%s in %s is %s, want %s", c.clock, c.zone, got, c.want)
		}
	}
	if (*Zone)(nil).Instant(7) != 7 {
		t.Error("UTC is no longer UTC")
	}
}

// TestInstantIsTheClocks: minute by minute around every change, it is the first instant at
// which the clock of package time shows the time, or, where it shows it never, the time on
// the clock of before the change.
func TestInstantIsTheClocks(t *testing.T) {
	const minute, day = 60_000, 24 * 60 * 60_000
	for _, name := range oddZones {
		z, l := Load(name), locate(name)
		for i, e := range z.Eras {
			if i == 0 || e.From < 0 || e.From > 2_200_000_000_000 {
				continue // before 1970 clocks were off by odd seconds, and after 2039 nothing is new
			}
			shown := map[int64]int64{} // on the clock -> first instant
			for ms := e.From - 2*day; ms < e.From+2*day; ms += minute {
				if _, again := shown[wallClock(l, ms)]; !again {
					shown[wallClock(l, ms)] = ms
				}
			}
			before := z.Eras[i-1].Ahead
			for clock := e.From + before - day/2; clock < e.From+before+day/2; clock += minute {
				want, ok := shown[clock]
				if !ok {
					want = clock - before
				}
				if got := z.Instant(clock); got != want {
					t.Fatalf("%s: %d is at %d, want %d", name, clock, got, want)
				}
			}
		}
	}
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
	if got := Load("Europe/Berlin").Reached(0); got != 3_600_000 {
		t.Errorf("Berlin is %d ms ahead", got)
	}
	for _, name := range []string{"", "Local", "Europe", "Europe/", "../Europe/Berlin", "europe/berlin", "Europe/Bonn"} {
		if Load(name) != nil {
			t.Errorf("%q is a zone", name)
		}
	}
}

// everyDay looks at every day from 1800 to 2100, and at every week of the time before and
// after it. No clock was ever changed and changed back within a day, and the rules of the
// future have summers and months of fasting, but no days.
func everyDay(location *time.Location) *Zone {
	ahead := func(s int64) int64 { return wallClock(location, s*1000) - s*1000 }
	const day, end = 24 * 60 * 60, 9_223_372_036 + 4*24*60*60
	from, to := time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	z := &Zone{[]Era{{math.MinInt64, ahead(-end)}}}
	for s := int64(-end); s < end; {
		length := int64(day)
		if s < from || s > to {
			length = 7 * day
		}
		if was, is := ahead(s), ahead(s+length); was != is {
			change := s
			for step := length; step > 0; step /= 2 {
				for change+step <= s+length && ahead(change+step) == was {
					change += step
				}
			}
			z.Eras = append(z.Eras, Era{(change + 1) * 1000, is})
		}
		s += length
	}
	return z
}

// TestEveryZone: all of the database can be read and is read right, and no clock
// was ever changed by more than what is allowed for.
func TestEveryZone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	twins := map[uint32]*Zone{} // by checksum: many zones have several names
	all, err := zip.NewReader(strings.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all.File {
		if file.FileInfo().IsDir() {
			continue
		}
		if twins[file.CRC32] == nil {
			twins[file.CRC32] = everyDay(locate(file.Name))
		}
		z, twin := Load(file.Name), twins[file.CRC32]
		if !slices.Equal(z.Eras, twin.Eras) {
			t.Errorf("%s: %d eras, want %d", file.Name, len(z.Eras), len(twin.Eras))
		}
		for i, e := range z.Eras {
			if e.Ahead <= -furthest/2 || e.Ahead >= furthest/2 {
				t.Errorf("%s is %d ms ahead", file.Name, e.Ahead)
			}
			if i > 0 && (e.Ahead-z.Eras[i-1].Ahead > furthest/2 || z.Eras[i-1].Ahead-e.Ahead > furthest/2) {
				t.Errorf("%s is changed by more than a day at %d", file.Name, e.From)
			}
		}
	}
}

func BenchmarkZone(b *testing.B) {
	for b.Loop() {
		Load("Europe/Berlin")
	}
}
