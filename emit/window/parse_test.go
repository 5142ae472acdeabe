package window

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const s, m, h, d = 1000, 60_000, 3_600_000, 86_400_000
	for text, want := range map[string]Family{
		"tumbling:1m":                 {size: m, slide: m},
		"tumbling:1h+15m":             {size: h, slide: h, offset: 15 * m},
		"tumbling:1d-8h":              {size: d, slide: d, offset: -8 * h},
		"tumbling:7d+4d":              {size: 7 * d, slide: 7 * d, offset: 4 * d},
		"tumbling:1d12h":              {size: d + 12*h, slide: d + 12*h},
		"tumbling:1h30m":              {size: h + 30*m, slide: h + 30*m},
		"tumbling:1.5s":               {size: 1500, slide: 1500},
		"tumbling:1ms":                {size: 1, slide: 1},
		"hopping:5m/1m":               {size: 5 * m, slide: m},
		"hopping:5s/2s+1s":            {size: 5 * s, slide: 2 * s, offset: s},
		"hopping:1m/1m":               {size: m, slide: m},
		"hopping:64ms/1ms":            {size: 64, slide: 1},
		"sliding:30s":                 {size: 30 * s},
		"tumbling:1d@Europe/Berlin":   {size: d, slide: d},
		"tumbling:1d+6h@Etc/GMT+8":    {size: d, slide: d, offset: 6 * h},
		"hopping:7d/1d-1h@Asia/Tokyo": {size: 7 * d, slide: d, offset: -h},
	} {
		f, err := ParseFamily(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if f.size != want.size || f.slide != want.slide || f.offset != want.offset || f.String() != text || (f.zone != nil) != strings.Contains(text, "@") {
			t.Errorf("%s is %+v", text, f)
		}
	}
	set, err := Parse(" tumbling:1m, hopping:5m/1m ,sliding:30s")
	if err != nil || set.String() != "tumbling:1m,hopping:5m/1m,sliding:30s" || set.Most() != 7 {
		t.Errorf("%v, %v, %d", set, err, set.Most())
	}
}

// Every fault is one row: what was written, and problem and hint that come of it.
func TestParseFaults(t *testing.T) {
	const tooMany = "make them begin less often, or combine shorter ones in the consumer"
	for _, c := range []struct{ text, want string }{
		{"", `"": unknown kind of windows | ` + hintFamilies},
		{"session:5m", `"session:5m": unknown kind of windows | ` + hintFamilies},
		{"Tumbling:5m", `"Tumbling:5m": unknown kind of windows | ` + hintFamilies},
		{"tumbling", `"tumbling": the size "" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:5", `"tumbling:5": the size "5" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:0s", `"tumbling:0s": the size is not above 0 | ` + hintDuration},
		{"tumbling:-1m", `"tumbling:-1m": the size "" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:1d-1d", `"tumbling:1d-1d": the offset is not less than the time from one window to the next | windows repeat: leave out whole ones`},
		{"tumbling:10s+20s", `"tumbling:10s+20s": the offset is not less than the time from one window to the next | windows repeat: leave out whole ones`},
		{"tumbling:10s+x", `"tumbling:10s+x": the offset "+x" is no duration of whole milliseconds | ` + hintDuration},
		{"tumbling:10s+-5s", `"tumbling:10s+-5s": the offset "+-5s" is no duration of whole milliseconds | ` + hintDuration},
		{"tumbling:1500us", `"tumbling:1500us": the size "1500us" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:36501d", `"tumbling:36501d": the size "36501d" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:36500d1ms", `"tumbling:36500d1ms": the size "36500d1ms" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:99999999999999d", `"tumbling:99999999999999d": the size "99999999999999d" is no duration of whole milliseconds up to 36500d | ` + hintDuration},
		{"tumbling:1d@Europe/Bonn", `"tumbling:1d@Europe/Bonn": "Europe/Bonn" is no time zone | ` + hintZone},
		{"tumbling:1d@", `"tumbling:1d@": "" is no time zone | ` + hintZone},
		{"tumbling:5m/1m", `"tumbling:5m/1m": a tumbling window begins where the one before it ends | windows that overlap are hopping:SIZE/SLIDE`},
		{"hopping:5m", `"hopping:5m": how often a window begins is missing | like hopping:5m/1m`},
		{"hopping:5m/0s", `"hopping:5m/0s": the slide is not above 0 | ` + hintDuration},
		{"hopping:1m/5m", `"hopping:1m/5m": a window would begin after the end of the one before it, and records in between would be in none | hopping:SIZE/SLIDE, with the longer first`},
		{"hopping:5m/1m+1m", `"hopping:5m/1m+1m": the offset is not less than the time from one window to the next | windows repeat: leave out whole ones`},
		{"hopping:1h/1ms", `"hopping:1h/1ms": every record would be in 3600000 windows, each written into its headers; the maximum is 64 | ` + tooMany},
		{"hopping:65ms/1ms", `"hopping:65ms/1ms": every record would be in 65 windows, each written into its headers; the maximum is 64 | ` + tooMany},
		{"hopping:36500d/1ms", `"hopping:36500d/1ms": every record would be in 3153600000000 windows, each written into its headers; the maximum is 64 | ` + tooMany},
		{"sliding:30s+1s", `"sliding:30s+1s": a sliding window ends at its record, so all it has is a size | like sliding:30s; windows that begin at fixed times are hopping:SIZE/SLIDE`},
		{"sliding:30s/1s", `"sliding:30s/1s": a sliding window ends at its record, so all it has is a size | like sliding:30s; windows that begin at fixed times are hopping:SIZE/SLIDE`},
		{"tumbling:1m,", `"": unknown kind of windows | ` + hintFamilies},
		{"x,y", `"x": unknown kind of windows | ` + hintFamilies + "\n" + `"y": unknown kind of windows | ` + hintFamilies},
		{"tumbling:1m,tumbling:60s", `"tumbling:60s" are the same windows as "tumbling:1m" | `},
		{"tumbling:1m,hopping:1m/1m", `"hopping:1m/1m" are the same windows as "tumbling:1m" | `},
		{"hopping:40s/1s,hopping:41s/1s", "every record would be in 81 windows, each written into its headers; the maximum is 64 | " + tooMany},
		{"tumbling:1s,tumbling:2s,tumbling:3s,tumbling:4s,tumbling:5s,tumbling:6s,tumbling:7s,tumbling:8s,tumbling:9s", "9 kinds of windows are more than 8 | "},
	} {
		_, err := Parse(c.text)
		if err == nil {
			t.Errorf("%s: accepted", c.text)
			continue
		}
		var lines []string
		for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
			lines = append(lines, fmt.Sprintf("%s | %s", err, err.(*Error).Hint()))
		}
		if got := strings.Join(lines, "\n"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
	// With a zone, days are told apart from those of another.
	if _, err := Parse("tumbling:1d,tumbling:1d@Europe/Berlin,tumbling:1d@Europe/Paris"); err != nil {
		t.Error(err)
	}
}

// FuzzParse: whatever is written, it is refused with words of ours, or it is
// windows: bounded in number, around the time that is in them, and written back as they were read.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"tumbling:1m", "hopping:5m/1m", "sliding:30s", "tumbling:1d+6h@Europe/Berlin", "hopping:5s/2s-100ms",
		"tumbling:1d-1d", "hopping:1h/1ms", "tumbling:1m,hopping:5m/1m", "sliding:1d@UTC", "tumbling:@", ":/+@", "tumbling:1dd",
	} {
		f.Add(text, int64(1_763_700_000_000))
		f.Add(text, int64(-1))
	}
	f.Fuzz(func(t *testing.T, text string, ms int64) {
		set, err := Parse(text)
		if err != nil {
			if !errors.As(err, new(*Error)) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if again, err := Parse(set.String()); err != nil || again.String() != set.String() {
			t.Fatalf("%q is read back as %v, %v", set, again, err)
		}
		if len(set) > MaxFamilies || set.Most() > MaxWindows {
			t.Fatalf("%q: %d windows", text, set.Most())
		}
		ms %= 9_000_000_000_000
		for _, family := range set {
			ws, stretch := family.Append(nil, at(ms))
			if len(ws) == 0 || len(ws) > family.Most() || ms < stretch.Start || ms >= stretch.End {
				t.Fatalf("%s at %d: %s in %v", family, ms, shown(ws), stretch)
			}
			for _, w := range ws {
				if ms < w.Start || ms >= w.End {
					t.Fatalf("%s at %d: %s", family, ms, shown(ws))
				}
			}
		}
	})
}
