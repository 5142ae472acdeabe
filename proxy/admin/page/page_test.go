package page

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew")

// noon is when everything in these tests is.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) watermark.Time { return watermark.Time(noon.Add(-d).UnixNano()) }

// oneOfEach is the status of a process that has one partition in each state.
func oneOfEach() *status.Status {
	st := &status.Status{
		Facts: status.Facts{
			Instance: "billing-0", Group: "billing", Topics: []string{"payments"}, Delivery: config.ExactlyOnce, Strategy: config.Bounded,
			Bound: 5 * time.Second, IdleTimeout: 5 * time.Second, Memory: 256 << 20, MaxFuture: 2500 * time.Millisecond, ClockHeader: "till",
			EventTime: `header "event-time" (ms since 1970, or RFC 3339), else the record's own timestamp`, Sources: []string{"header:event-time", "timestamp", "none"},
		},
		Version: "v1.2.3", Started: noon.Add(-26 * time.Hour), At: noon, State: status.Degraded,
		Reasons: []string{"payments partition 7 is suspended: the record at offset 7 does not fit", "the group's coordinator does not describe the group: no answer within 5s"}, Hints: []string{"raise max.message.bytes", ""}, Ready: true,
		Counts:  fault.Counts{Commits: 93512, Aborts: 2, Rebalances: 3},
		Bytes:   12 << 20,
		Latency: histogram(40, 60, 900, 3),

		Producers: []clocks.Judgement{{Topic: "payments", Finding: clocks.Ahead, Lead: time.Hour, Name: "till-17"}}, ProducersOff: 1,
	}
	st.Probes.Metadata = status.Probe{At: noon.Add(-4 * time.Second), Took: 2 * time.Millisecond}
	st.Probes.Admin = status.Probe{At: noon.Add(-4 * time.Second), Took: 5 * time.Second, Err: errors.New("no answer within 5s")}
	for i, state := range status.PartitionStates {
		st.Partitions = append(st.Partitions, partitionIn(state, int32(i)))
	}
	st.Partitions = append(st.Partitions, status.Partition{
		Topic: "payments", Partition: 8, State: status.Active, End: -1, Stable: -1,
		Status:  reorder.Status{Watermark: watermark.None, Newest: watermark.None},
		Hold:    status.Hold{Words: "nothing is held", Event: watermark.None},
		Density: reorder.Held{From: watermark.None, To: watermark.None},
	})
	return st
}

func partitionIn(state status.PartitionState, n int32) status.Partition {
	p := status.Partition{
		Topic: "payments", Partition: n, State: state,
		Status:    reorder.Status{Newest: before(200 * time.Millisecond), Watermark: before(5200*time.Millisecond + 1), Low: 1200, Next: 2404, Records: 1204, Owed: 1204, Bytes: 1 << 20},
		Committed: 1200, End: 2410, Stable: 2410, OrderedRate: 240.4, LateRate: 1.25,
		Density: reorder.Held{From: before(5100 * time.Millisecond), To: before(200 * time.Millisecond)},
		Hold:    status.Hold{Words: "waits for the watermark, which has 100 ms to go", Event: before(5100 * time.Millisecond), At: noon.Add(100 * time.Millisecond)},
		Totals:  status.Totals{Read: 12404, Ordered: 11190, Held: 1204}, DecidedBy: []int64{12404, 0, 0},
	}
	p.Late[reorder.BehindWatermark], p.Late[reorder.Future], p.LateRates[reorder.BehindWatermark] = 9, 1, 1.25
	p.Disorder = histogram(9000, 2000, 1000, 9)
	for i := range p.Density.Cells {
		p.Density.Cells[i] = int64(i * i)
	}
	switch state {
	case status.Idle:
		p.Newest, p.Watermark, p.Records, p.Held, p.Bytes, p.OrderedRate, p.Committed = before(time.Hour), before(time.Hour), 0, 0, 0, 0, 2404
		p.Totals.Ordered += 1204
		p.Density = reorder.Held{From: watermark.None, To: watermark.None}
		p.Hold = status.Hold{Words: "nothing is held", Event: watermark.None}
	case status.Draining:
		p.Newest, p.Watermark = before(10*time.Second), before(12*time.Second)
		p.Density.From, p.Density.To = before(11*time.Second), before(10*time.Second)
		p.Hold = status.Hold{Words: "nothing new for 9.8 s; what is held is released by the clock", Event: p.Density.From, At: noon.Add(time.Second)}
	case status.Paused:
		p.Hold.Words, p.Hold.At = "is 1 min of event time ahead of the slowest partition and waits for it (TIDEMARK_MAX_DRIFT=30s)", time.Time{}
	case status.Recovering:
		p.Absent = "1 of 1000 records have header:event-time; timestamp decides for the others"
		p.DecidedBy = []int64{4, 12400, 0}
		p.LateCause = "the clock of producer till-17 is 1h0m0s ahead, set it right (NTP); or lower TIDEMARK_MAX_FUTURE=2h0m0s, which let it pass"
		p.Invalid = status.Invalid{Offset: 2401, Err: errors.New("no usable event time: field ts with a number of 16 digits is outside the years 1678 to 2262 (read as unix-ms; as unix-us it would fit)"), Hint: "set TIDEMARK_EVENT_TIME=json:ts:unix-us if that is what producers write"}
		p.EventTimeFinding = "timestamp seems to have seconds, and is read as milliseconds"
		p.Newest, p.Watermark, p.Stable, p.Finding = before(3*time.Hour), before(3*time.Hour+5*time.Second), 2400, clocks.ReadLate
		p.Density.From, p.Density.To = p.Watermark.Next(), p.Newest
		p.Hold = status.Hold{Words: "replays what was held at the last commit: 700 of 1204 offsets to go", Event: p.Watermark.Next()}
	case status.WaitingForSchema, status.WaitingForOutputs, status.Stopped:
		p.Records, p.Bytes, p.OrderedRate = 0, 0, 0
		p.Density = reorder.Held{From: watermark.None, To: watermark.None}
		p.Hold = status.Hold{Words: "the record at offset 7 does not fit; raise max.message.bytes", Event: watermark.None}
	}
	return p
}

// histogram has the given counts at 1 ms, and evenly up to 100 ms, 4 s and 20 s.
func histogram(counts ...uint64) (h status.Histogram) {
	h.Zero = counts[0]
	for i := range h.Classes {
		for j, most := range []time.Duration{100 * time.Millisecond, 4 * time.Second, 20 * time.Second} {
			if l := limit(i); l <= most && l > most/8 {
				h.Classes[i] += counts[j+1] / 12
			}
		}
	}
	return h
}

// crowd is a status with many partitions.
func crowd(n int) *status.Status {
	st := oneOfEach()
	st.Partitions = nil
	for i := range n {
		st.Partitions = append(st.Partitions, partitionIn(status.PartitionStates[i%3], int32(i)))
	}
	return st
}

type board struct{ shows *status.Status }

func (b board) Status(context.Context) *status.Status { return b.shows }

func TestPage(t *testing.T) {
	const golden = "testdata/states.html"
	got := Write(oneOfEach(), noon.Add(500*time.Millisecond), everything)
	if *rewrite {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the page is another than in %s: look at it, and rewrite it with -rewrite", golden)
	}
	wellFormed(t, got)
	for _, state := range status.PartitionStates {
		if looks[state] == "" {
			t.Errorf("state %s has no look", state)
		}
	}
}

var (
	tag       = regexp.MustCompile(`<(/?)([a-z][a-z0-9]*)((?: [a-z][a-zA-Z0-9-]*(?:="[^"<>]*")?)*)(/?)>`)
	attribute = regexp.MustCompile(` ([a-zA-Z0-9-]+)(?:="([^"]*)")?`)
	void      = []string{"meta", "link"}
)

// wellFormed checks that all elements are closed, in order, that attributes are quoted
// and none of a kind that the policy forbids, that ids are given once, and that no
// value was without a place.
func wellFormed(t *testing.T, page []byte) {
	t.Helper()
	rest := tag.ReplaceAllString(strings.TrimPrefix(string(page), "<!DOCTYPE html>"), "")
	if i := strings.IndexAny(rest, "<>"); i >= 0 {
		t.Errorf("this is no HTML: %.80q", rest[i:])
	}
	if bytes.Contains(page, []byte("%!")) || bytes.Contains(page, []byte("NaN")) || bytes.Contains(page, []byte("Inf")) {
		t.Error("a value has no place, or is none")
	}
	var open []string
	ids := map[string]bool{}
	for _, m := range tag.FindAllStringSubmatch(string(page), -1) {
		name := m[2]
		for _, a := range attribute.FindAllStringSubmatch(m[3], -1) {
			if a[1] == "style" || strings.HasPrefix(a[1], "on") {
				t.Errorf("<%s> has %s", name, a[0])
			}
			if a[1] == "id" && ids[a[2]] {
				t.Errorf("two have id %s", a[2])
			}
			if a[1] == "id" {
				ids[a[2]] = true
			}
		}
		switch {
		case name == "style" || name == "script" && m[1] == "" && !strings.Contains(m[3], " src="):
			t.Errorf("there is a <%s> in the page", name)
		case m[1] != "" && (len(open) == 0 || open[len(open)-1] != name):
			t.Fatalf("</%s> ends none of %v", name, open)
		case m[1] != "":
			open = open[:len(open)-1]
		case m[4] == "" && !slices.Contains(void, name):
			open = append(open, name)
		}
	}
	if len(open) > 0 {
		t.Errorf("not closed: %v", open)
	}
}

// Whatever Kafka or a registry puts into names and reasons is text.
func TestHostileNames(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>' & %s %!d`
	st := oneOfEach()
	st.Instance, st.Group, st.Version, st.Topics, st.Reasons = hostile, hostile, hostile, []string{hostile}, []string{hostile}
	st.State, st.Delivery, st.Strategy = hostile, hostile, hostile
	st.Probes.Admin.Err = errors.New(hostile)
	for i := range st.Partitions {
		p := &st.Partitions[i]
		p.Topic, p.Hold.Words = hostile+strconv.Itoa(i), hostile
	}
	st.Partitions[0].State = hostile
	got := string(Write(st, noon, everything))
	if strings.Contains(got, "<script>") || strings.Contains(got, "<img") {
		t.Error("a name got into the page as markup")
	}
	wellFormed(t, []byte(strings.ReplaceAll(got, "%!d", "")))
}

// A page can be made of anything, be it centuries apart or the wrong way round.
func TestExtremes(t *testing.T) {
	times := []watermark.Time{watermark.None, watermark.None + 1, -1, 0, before(0), before(-time.Hour), watermark.Max}
	for _, newest := range times {
		for _, w := range times {
			st := oneOfEach()
			st.Bound = time.Duration(math.MaxInt64)
			for i, from := range times {
				p := &st.Partitions[i]
				p.Newest, p.Watermark, p.Density.From, p.Density.To, p.Hold.Event = newest, w, from, newest, from
			}
			st.Partitions[0].Disorder.Over = math.MaxInt64
			wellFormed(t, Write(st, noon.Add(-time.Hour), everything))
			if t.Failed() {
				t.Fatalf("newest %d, watermark %d", newest, w)
			}
		}
	}
	wellFormed(t, Write(&status.Status{NotReady: "starting"}, noon, everything))
}

func TestWorstFirst(t *testing.T) {
	var got []string
	ps := oneOfEach().Partitions
	behind := partitionIn(status.Active, 9)
	behind.Newest = before(time.Minute)
	alike := partitionIn(status.Active, 11) // a little more, but not twice as much
	alike.Newest = before(79 * time.Second)
	wrong := partitionIn(status.Active, 10)
	wrong.Ordered++
	ahead := partitionIn(status.Active, 12) // and nobody sees it by how far it is behind
	ahead.Newest = before(-time.Hour)
	ahead.Reasons = []status.Kind{status.TooManyLate}
	for _, p := range worstFirst(append(ps, alike, behind, wrong, ahead), noon) {
		got = append(got, fmt.Sprint(p.Partition, " ", p.State))
	}
	want := "5 waiting-for-schema, 6 waiting-for-outputs, 7 stopped, 10 active, 12 active, 4 recovering, 9 active, 11 active, 2 draining, 0 active, 1 idle, 3 paused, 8 active"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("the order is\n%s, want\n%s", s, want)
	}
}

// One number of records held is on the page, and where there is no watermark nothing is between
// it and the newest event. What is far away is named where no mark is.
func TestTimelineWords(t *testing.T) {
	p := partitionIn(status.Active, 0)
	p.Held, p.Records = 7085, 7090
	if got, want := timelineWords(&p, noon), "newest event 200 ms ago, watermark 5.2 s ago, 7,085 records held"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.Watermark = watermark.None
	if got, want := timelineWords(&p, noon), "newest event 200 ms ago, no watermark yet, 7,085 records held"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, newest := range []time.Duration{57 * 365 * 24 * time.Hour, -time.Hour} {
		p.Newest, p.Watermark = before(newest), before(newest+5*time.Second)
		var row, whole document
		row.timeline(&p, 5*time.Second, noon, rowScale(p.Newest, 5*time.Second), small)
		whole.timeline(&p, 5*time.Second, noon, ownScale(&p, before(0), 5*time.Second), large)
		if strings.Contains(string(row.text), "clock +") || strings.Contains(string(row.text), "clock −") {
			t.Errorf("words lie over a row: %s", row.text)
		}
		if !regexp.MustCompile(`y="14" text-anchor="(start|end)">[^<]*clock`).Match(whole.text) {
			t.Errorf("the clock is not named: %s", whole.text)
		}
	}
}

// Hundreds of partitions are a page that a browser shows at once, and what the script
// asks for every two seconds is a fraction of it.
func TestManyPartitions(t *testing.T) {
	st := crowd(500)
	for _, c := range []struct {
		name              string
		shown             func(string) bool
		kilobytes, packed int
	}{
		{"page", everything, 2700, 330},
		{"rows", func(id string) bool { return id == "payments/3" }, 720, 90},
	} {
		text := Write(st, noon, c.shown)
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		_, _ = z.Write(text)
		_ = z.Close()
		t.Logf("%s: %d kB, packed %d kB", c.name, len(text)/1000, packed.Len()/1000)
		if len(text) > c.kilobytes*1000 || packed.Len() > c.packed*1000 {
			t.Errorf("the %s of 500 partitions are %d bytes, packed %d", c.name, len(text), packed.Len())
		}
	}
}

func BenchmarkPage(b *testing.B) {
	st := crowd(500)
	for _, c := range []struct {
		name  string
		shown func(string) bool
	}{{"whole", everything}, {"rows", func(string) bool { return false }}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				Write(st, noon, c.shown)
			}
		})
	}
}

func TestHandler(t *testing.T) {
	h := Handler(board{oneOfEach()})
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for path, kind := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"} {
		plain, packed := get(path), get(path, "Accept-Encoding", "gzip, br")
		if plain.Code != 200 || !strings.HasPrefix(plain.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: %d, %v", path, plain.Code, plain.Header())
		}
		if got := plain.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'self';") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: Content-Security-Policy: %s", path, got)
		}
		z, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(z); err != nil || path != "/" && !bytes.Equal(text, plain.Body.Bytes()) {
			t.Errorf("%s is another when it is packed: %v", path, err)
		}
	}
	if got := get("/other").Code; got != 404 {
		t.Errorf("/other: %d", got)
	}
	bodies := func(path string) int { return strings.Count(get(path).Body.String(), `<div class="body">`) }
	if all, none, two := bodies("/"), bodies("/?rows"), bodies("/?rows=&open=payments/1&open=payments/2&open=other/1"); all != 9 || none != 0 || two != 2 {
		t.Errorf("of 9 partitions there are %d whole, %d when rows are asked for, %d when two are open", all, none, two)
	}
}

// Nothing is asked of anybody else.
func TestNothingFromElsewhere(t *testing.T) {
	elsewhere := regexp.MustCompile(`(?i)(?:[a-z]+:)?//[a-z0-9]|url\(|@import|\bimport\b`)
	texts := map[string][]byte{"page": Write(oneOfEach(), noon, everything)}
	files, err := assets.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		texts[f.Name()], _ = assets.ReadFile(f.Name())
	}
	if len(texts) != 4 {
		t.Fatalf("there are %d texts", len(texts))
	}
	for name, text := range texts {
		text = bytes.Replace(text, []byte(`xmlns="http://www.w3.org/2000/svg"`), nil, 1) // a name
		if found := elsewhere.Find(text); found != nil {
			t.Errorf("%s has %s", name, found)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 400 * time.Microsecond: "<1 ms", 4200 * time.Millisecond: "4.2 s", 12 * time.Millisecond: "12 ms", 994 * time.Millisecond: "994 ms",
		996 * time.Millisecond: "1.0 s", 59400 * time.Millisecond: "59 s", 59600 * time.Millisecond: "1 min", 192 * time.Second: "3 min 12 s",
		time.Hour - time.Millisecond: "1 h", 4*time.Hour + 12*time.Minute: "4 h 12 min", 50 * time.Hour: "2 d 2 h", math.MaxInt64: "292 years", math.MinInt64: "−292 years",
		-time.Second: "−1.0 s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
	for r, want := range map[float64]string{0: "0", 0.01: "<0.1", 1.24: "1.2", 9.96: "10", 1204.4: "1,204"} {
		if got := perSecond(r); got != want {
			t.Errorf("perSecond(%v) = %q, want %q", r, got, want)
		}
	}
	if got := when(before(24*time.Hour), noon); got != "2026-03-13 12:00:00.0 UTC, 24 h ago" {
		t.Error(got)
	}
	if got := when(before(-2*time.Second), noon); got != "12:00:02.0 UTC, 2.0 s ahead" {
		t.Error(got)
	}
}

// The curve says what the histogram has.
func TestDisorder(t *testing.T) {
	h := histogram(500, 480, 0, 12)
	h.Over = 8
	for share, want := range map[float64]time.Duration{0.5: time.Millisecond, 0.98: 100 * time.Millisecond} {
		if got, ok := h.Within(share); !ok || got < want*8/10 || got > want*12/10 {
			t.Errorf("%v came within %v, want about %v", share, got, want)
		}
	}
	if got, ok := h.Within(0.999); ok {
		t.Errorf("99.9 %% came within %v, and 0.8 %% are above all limits", got)
	}
	left := beyond(&h)
	if left[0] != h.Count()-500 || left[len(left)-1] != 8 || !slices.IsSortedFunc(left[:], func(a, b uint64) int { return int(b) - int(a) }) {
		t.Errorf("beyond the limits are %v", left)
	}
}

var colour = regexp.MustCompile(`--([a-z]+): #([0-9a-f]{6});`)

// What is written can be read, on both grounds: a contrast of 4.5 by WCAG 2.
func TestContrast(t *testing.T) {
	css, err := assets.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	found := colour.FindAllStringSubmatch(string(css), -1)
	if len(found) != 30 {
		t.Fatalf("there are %d colours, want 15 for light and 15 for dark", len(found))
	}
	for i, theme := range []string{"light", "dark"} {
		luminance := map[string]float64{}
		for _, m := range found[i*15 : i*15+15] {
			luminance[m[1]] = bright(t, m[2])
		}
		for _, text := range []string{"ink", "quiet", "accent", "active", "idle", "draining", "paused", "waiting", "stopped"} {
			for _, ground := range []string{"ground", "panel"} {
				if c := contrast(luminance[text], luminance[ground]); c < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.1f", theme, text, ground, c)
				}
			}
		}
		for _, pair := range [][2]string{{"quiet", "late"}, {"quiet", "out"}} {
			if c := contrast(luminance[pair[0]], luminance[pair[1]]); c < 4.5 {
				t.Errorf("%s: %s on %s has a contrast of %.1f", theme, pair[0], pair[1], c)
			}
		}
		for _, shape := range []string{"held", "waiting", "accent"} { // 3 for what is drawn
			if c := contrast(luminance[shape], luminance["panel"]); c < 3 {
				t.Errorf("%s: %s has a contrast of %.1f", theme, shape, c)
			}
		}
	}
}

// bright returns the relative luminance of a colour.
func bright(t *testing.T, hex string) float64 {
	var rgb [3]uint8
	if _, err := fmt.Sscanf(hex, "%02x%02x%02x", &rgb[0], &rgb[1], &rgb[2]); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		c := float64(rgb[i]) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }
