package window

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/emit/zone"
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

// TestZonedWindows: in any zone windows are side by side as on the wall clock,
// and hold the times between their ends and no others.
func TestZonedWindows(t *testing.T) {
	zones := map[string]*zone.Zone{}
	for _, name := range oddZones {
		zones[name] = zone.Load(name)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(oddZones).Draw(t, "zone")
		z := zones[name]
		slide := rapid.SampledFrom([]int64{900_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000}).Draw(t, "slide")
		f := &Family{zone: z, slide: slide, size: slide * rapid.Int64Range(2, 9).Draw(t, "halves") / 2}
		f.offset = rapid.Int64Range(1-slide, slide-1).Draw(t, "offset")
		near := z.Eras[rapid.IntRange(0, len(z.Eras)-1).Draw(t, "era")].From
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
