package window

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/watermark"
)

func family(t testing.TB, text string) *Family {
	t.Helper()
	f, err := ParseFamily(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func at(ms int64) watermark.Time { return watermark.Time(ms * int64(time.Millisecond)) }

func shown(ws []Window) string {
	parts := make([]string, len(ws))
	for i, w := range ws {
		parts[i] = fmt.Sprintf("[%d,%d)", w.Start, w.End)
	}
	return strings.Join(parts, " ")
}

// The cases that Flink tests its own assigners and TimeWindow with, and those of
// its code that it does not test: times below 1970 and sizes that are no
// multiple of the slide.
func TestFlink(t *testing.T) {
	for _, c := range []struct {
		family string
		ms     int64
		want   string
	}{
		// TumblingEventTimeWindowsTest
		{"tumbling:5s", 0, "[0,5000)"},
		{"tumbling:5s", 4999, "[0,5000)"},
		{"tumbling:5s", 5000, "[5000,10000)"},
		{"tumbling:5s+100ms", 100, "[100,5100)"},
		{"tumbling:5s+100ms", 5099, "[100,5100)"},
		{"tumbling:5s+100ms", 5100, "[5100,10100)"},
		{"tumbling:5s-100ms", 0, "[-100,4900)"},
		{"tumbling:5s-100ms", 4899, "[-100,4900)"},
		{"tumbling:5s-100ms", 4900, "[4900,9900)"},
		{"tumbling:5s+1s", 1000, "[1000,6000)"},
		{"tumbling:5s+1s", 5999, "[1000,6000)"},
		{"tumbling:5s+1s", 6000, "[6000,11000)"},

		// SlidingEventTimeWindowsTest
		{"hopping:5s/1s", 0, "[-4000,1000) [-3000,2000) [-2000,3000) [-1000,4000) [0,5000)"},
		{"hopping:5s/1s", 4999, "[0,5000) [1000,6000) [2000,7000) [3000,8000) [4000,9000)"},
		{"hopping:5s/1s", 5000, "[1000,6000) [2000,7000) [3000,8000) [4000,9000) [5000,10000)"},
		{"hopping:5s/1s+100ms", 100, "[-3900,1100) [-2900,2100) [-1900,3100) [-900,4100) [100,5100)"},
		{"hopping:5s/1s+100ms", 5099, "[100,5100) [1100,6100) [2100,7100) [3100,8100) [4100,9100)"},
		{"hopping:5s/1s+100ms", 5100, "[1100,6100) [2100,7100) [3100,8100) [4100,9100) [5100,10100)"},
		{"hopping:5s/1s-100ms", 0, "[-4100,900) [-3100,1900) [-2100,2900) [-1100,3900) [-100,4900)"},
		{"hopping:5s/1s-100ms", 4899, "[-100,4900) [900,5900) [1900,6900) [2900,7900) [3900,8900)"},
		{"hopping:5s/1s-100ms", 4900, "[900,5900) [1900,6900) [2900,7900) [3900,8900) [4900,9900)"},
		{"hopping:5s/1s+500ms", 100, "[-4500,500) [-3500,1500) [-2500,2500) [-1500,3500) [-500,4500)"},
		{"hopping:5s/1s+500ms", 5499, "[500,5500) [1500,6500) [2500,7500) [3500,8500) [4500,9500)"},
		{"hopping:5s/1s+500ms", 5100, "[500,5500) [1500,6500) [2500,7500) [3500,8500) [4500,9500)"},

		// TimeWindowTest
		{"tumbling:7ms", 1, "[0,7)"},
		{"tumbling:7ms", 6, "[0,7)"},
		{"tumbling:7ms", 7, "[7,14)"},
		{"tumbling:7ms", 8, "[7,14)"},
		{"tumbling:7ms+3ms", 1, "[-4,3)"},
		{"tumbling:7ms+3ms", 2, "[-4,3)"},
		{"tumbling:7ms+3ms", 3, "[3,10)"},
		{"tumbling:7ms+3ms", 9, "[3,10)"},
		{"tumbling:7ms+3ms", 10, "[10,17)"},
		{"tumbling:7ms-2ms", 1, "[-2,5)"},
		{"tumbling:7ms-2ms", -2, "[-2,5)"},
		{"tumbling:7ms-2ms", 3, "[-2,5)"},
		{"tumbling:7ms-2ms", 4, "[-2,5)"},
		{"tumbling:7ms-2ms", 7, "[5,12)"},
		{"tumbling:7ms-2ms", 12, "[12,19)"},
		{"tumbling:1d-8h", 1470902048450, "[1470844800000,1470931200000)"},

		// Below 1970.
		{"tumbling:5s", -1, "[-5000,0)"},
		{"tumbling:5s", -5000, "[-5000,0)"},
		{"tumbling:5s", -5001, "[-10000,-5000)"},
		{"tumbling:7ms+3ms", -5, "[-11,-4)"},
		{"hopping:5s/2s", -1, "[-4000,1000) [-2000,3000)"},

		// Five is no multiple of two: a time is in three windows or in two.
		{"hopping:5s/2s", 0, "[-4000,1000) [-2000,3000) [0,5000)"},
		{"hopping:5s/2s", 999, "[-4000,1000) [-2000,3000) [0,5000)"},
		{"hopping:5s/2s", 1000, "[-2000,3000) [0,5000)"},
		{"hopping:5s/2s", 1999, "[-2000,3000) [0,5000)"},
		{"hopping:5s/2s", 2000, "[-2000,3000) [0,5000) [2000,7000)"},
		{"hopping:10ms/3ms+1ms", 12, "[4,14) [7,17) [10,20)"},
	} {
		ws, _ := family(t, c.family).Append(nil, at(c.ms))
		if got := shown(ws); got != c.want {
			t.Errorf("%s at %d: %s, want %s", c.family, c.ms, got, c.want)
		}
	}
}

// The windows of Kafka Streams' own example that end at a record: a difference of
// 5000 ms, both ends of [3000, 8000] included.
func TestSlidingAsKafkaStreams(t *testing.T) {
	f := family(t, "sliding:5s")
	for ms, want := range map[int64]string{8000: "[3000,8001)", 9200: "[4200,9201)", 12400: "[7400,12401)", -1: "[-5001,0)"} {
		if ws, _ := f.Append(nil, at(ms)); shown(ws) != want {
			t.Errorf("%d: %s, want %s", ms, shown(ws), want)
		}
	}
}

// An event time finer than a millisecond is in the windows of its millisecond.
func TestFinerThanMillis(t *testing.T) {
	f := family(t, "tumbling:1s")
	for ns, want := range map[watermark.Time]string{
		1_000_000_000 - 1: "[0,1000)", 1_000_000_000: "[1000,2000)", -1: "[-1000,0)", -1_000_000_000: "[-1000,0)", -1_000_000_001: "[-2000,-1000)",
	} {
		if ws, _ := f.Append(nil, ns); shown(ws) != want {
			t.Errorf("%d ns: %s, want %s", ns, shown(ws), want)
		}
	}
}

// anyFamily draws one without a zone, of sizes that are seen through.
func anyFamily(t *rapid.T) *Family {
	slide := rapid.Int64Range(1, 50).Draw(t, "slide")
	f := &Family{size: rapid.Int64Range(slide, 12*slide).Draw(t, "size"), slide: slide}
	f.offset = rapid.Int64Range(1-slide, slide-1).Draw(t, "offset")
	return f
}

// everyWindow is the definition: of all windows of the family, those that a time
// is in.
func everyWindow(f *Family, ms int64) (ws []Window) {
	for k := (ms-f.size-f.offset)/f.slide - 2; k*f.slide+f.offset <= ms; k++ {
		if w := (Window{k*f.slide + f.offset, k*f.slide + f.offset + f.size}); w.Start <= ms && ms < w.End {
			ws = append(ws, w)
		}
	}
	return ws
}

func TestEveryWindowOfTheFamily(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyFamily(t)
		ms := rapid.OneOf(rapid.Int64Range(-2000, 2000), rapid.Int64Range(watermark.None.Millis()+1, watermark.Max.Millis()-1)).Draw(t, "ms")
		ws, _ := f.Append(nil, at(ms))
		if want := everyWindow(f, ms); !slices.Equal(ws, want) {
			t.Fatalf("%+v at %d: %s, want %s", f, ms, shown(ws), shown(want))
		}
		if len(ws) < 1 || len(ws) > f.Most() {
			t.Fatalf("%d windows, %d at most", len(ws), f.Most())
		}
	})
}

// The stretch is all times with the same windows, and no others.
func TestStretch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := anyFamily(t)
		if rapid.IntRange(0, 9).Draw(t, "sliding") == 0 {
			f.slide, f.offset = 0, 0
		}
		ms := rapid.Int64Range(-2000, 2000).Draw(t, "ms")
		ws, s := f.Append(nil, at(ms))
		if ms < s.Start || ms >= s.End {
			t.Fatalf("%d is not in its stretch %v", ms, s)
		}
		for other := s.Start - 2; other <= s.End+1; other++ {
			same, _ := f.Append(nil, at(other))
			if inside := other >= s.Start && other < s.End; slices.Equal(ws, same) != inside {
				t.Fatalf("%+v: %d has %s, and %d has %s; the stretch is %v", f, ms, shown(ws), other, shown(same), s)
			}
		}
	})
}

// At the ends of time nothing turns round.
func TestEndsOfTime(t *testing.T) {
	for _, text := range []string{
		"tumbling:1ms", "tumbling:1m", "tumbling:36500d", "tumbling:36500d-36499d", "hopping:36500d/600d+599d", "sliding:36500d",
		"tumbling:1d@Europe/Berlin", "hopping:36500d/600d@Pacific/Apia",
	} {
		f := family(t, text)
		for _, end := range []watermark.Time{watermark.None, watermark.None + 1, watermark.Max - 1, watermark.Max} {
			ws, s := f.Append(nil, end)
			ms := end.Millis()
			if len(ws) == 0 || ms < s.Start || ms >= s.End {
				t.Errorf("%s at %d: %s in %v", text, ms, shown(ws), s)
			}
			for i, w := range ws {
				if ms < w.Start || ms >= w.End || i > 0 && w.Start <= ws[i-1].Start {
					t.Errorf("%s at %d: %s", text, ms, shown(ws))
				}
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var set Set
	for _, text := range []string{"tumbling:1m", "hopping:5m/1m", "sliding:30s", "tumbling:1d@Europe/Berlin"} {
		set = append(set, family(t, text))
	}
	var ws []Window
	ms := int64(1_763_700_000_000)
	if n := testing.AllocsPerRun(1000, func() {
		ws = ws[:0]
		for _, f := range set {
			ws, _ = f.Append(ws, at(ms))
		}
		ms += 1234
	}); n > 0 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, text := range []string{"tumbling:1m", "hopping:5m/1m", "sliding:30s", "tumbling:1d@Europe/Berlin", "hopping:1h/1m@Europe/Berlin"} {
		b.Run(text, func(b *testing.B) {
			f := family(b, text)
			var ws []Window
			ms := int64(1_763_700_000_000)
			b.ReportAllocs()
			for b.Loop() {
				ws, _ = f.Append(ws[:0], at(ms))
				ms += 7
			}
		})
	}
}
