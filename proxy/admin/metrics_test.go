package admin

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// The text is what is expected, by Prometheus' conventions, and nothing in it is said
// of the machine that the test runs on.
func TestMetricsText(t *testing.T) {
	r := get(Handler(load(t), (*shown)(example())), "/metrics", elsewhere)
	text := body(r)
	if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%s, %s", r.Status, r.Header.Get("Content-Type"))
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	var ours strings.Builder
	for line := range strings.Lines(text) {
		changes := strings.Contains(line, "go_version") || strings.HasPrefix(line, "tidemark_status_age_seconds ") || strings.HasPrefix(line, "tidemark_watermark_lag_seconds{")
		if strings.Contains(line, "tidemark_") && !changes {
			ours.WriteString(line)
		}
	}
	golden(t, "metrics.txt", ours.String())
}

// Every family has a unique name, a help that ends in a full stop, and samples with all
// of its labels, each combination once.
func TestFamilies(t *testing.T) {
	seen := map[string]bool{}
	all := gather(example(), noon)
	for _, f := range families {
		i := slices.IndexFunc(all, func(m *dto.MetricFamily) bool { return m.GetName() == f.name })
		if i < 0 || seen[f.name] || !strings.HasSuffix(f.help, ".") {
			t.Errorf("%s: no sample, or twice, or no sentence", f.name)
			continue
		}
		seen[f.name] = true
		series := map[string]bool{}
		for _, m := range all[i].Metric {
			key := fmt.Sprint(m.Label)
			if len(m.Label) != len(f.labels) || series[key] {
				t.Errorf("%s: %v", f.name, m.Label)
			}
			series[key] = true
		}
	}
}

// While the status grows old the watermark stands still, and falls behind.
func TestLagGrowsWhileTheLoopWaits(t *testing.T) {
	lag := func(now time.Time) float64 {
		for _, f := range gather(example(), now) {
			if f.GetName() == "tidemark_watermark_lag_seconds" {
				return f.Metric[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	if early, late := lag(noon), lag(noon.Add(time.Minute)); early != 7 || late != 67 {
		t.Errorf("%g s, and after a minute %g s", early, late)
	}
}

// Native histograms are those that Prometheus' own library makes of the same numbers,
// and the classic buckets beside them say the same.
func TestHistogramIsPrometheus(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		twin := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "x", Help: "x.", NativeHistogramBucketFactor: 1.19, NativeHistogramZeroThreshold: status.HistogramLimit(-1), Buckets: octaves(),
		})
		var h status.Histogram
		for range rnd.IntN(300) {
			if rnd.IntN(4) == 0 {
				h.Zero++
				twin.Observe(0)
				continue
			}
			class := int(rnd.ExpFloat64()*30) % len(h.Classes)
			middle := (status.HistogramLimit(class-1) + status.HistogramLimit(class)) / 2
			h.Classes[class]++
			h.Seconds += middle
			twin.Observe(middle)
		}
		s := sampling{into: &dto.MetricFamily{}}
		s.distribution(&h)
		got := s.into.Metric[0].Histogram
		var m dto.Metric
		if err := twin.Write(&m); err != nil {
			t.Fatal(err)
		}
		want := m.Histogram
		if g, w := spread(got), spread(want); !maps.Equal(g, w) {
			t.Errorf("seed %d: native %v, want %v", seed, g, w)
		}
		for _, h := range []*dto.Histogram{got, want} { // the twin fills small gaps with zeros
			h.CreatedTimestamp, h.PositiveSpan, h.PositiveDelta = nil, nil, nil
		}
		sum := want.GetSampleSum()
		if off := got.GetSampleSum() - sum; off > 1e-6*sum || off < -1e-6*sum {
			t.Errorf("seed %d: sum %g, want %g", seed, got.GetSampleSum(), sum)
		}
		got.SampleSum = &sum
		if got.String() != want.String() {
			t.Errorf("seed %d:\n%s\nwant\n%s", seed, got, want)
		}
	}
}

// spread returns the counts of the native buckets that are not empty.
func spread(h *dto.Histogram) map[int32]int64 {
	buckets := map[int32]int64{}
	at, n, deltas := int32(0), int64(0), h.PositiveDelta
	for _, s := range h.PositiveSpan {
		at += s.GetOffset()
		for range s.GetLength() {
			if n += deltas[0]; n != 0 {
				buckets[at] = n
			}
			at, deltas = at+1, deltas[1:]
		}
	}
	return buckets
}

func octaves() (le []float64) {
	for class := -1; class < 120; class += status.HistogramPerOctave {
		le = append(le, status.HistogramLimit(class))
	}
	return le
}

// Prometheus asks for Protobuf, for only there are native histograms, and for less bytes.
func TestMetricsProtobuf(t *testing.T) {
	h := Handler(load(t), (*shown)(example()))
	r := get(h, "/metrics", elsewhere, func(r *http.Request) {
		r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;q=0.2")
		r.Header.Set("Accept-Encoding", "gzip")
	})
	if r.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v", r.Header)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	d := expfmt.NewDecoder(z, expfmt.ResponseFormat(r.Header))
	native := 0
	for {
		var f dto.MetricFamily
		if err := d.Decode(&f); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.Metric {
			if len(m.GetHistogram().GetPositiveSpan()) > 0 {
				native++
			}
		}
	}
	if native != 3 { // disorder of two topics, and the latency
		t.Errorf("%d native histograms", native)
	}
}

// The law of conservation holds at every scrape of a running sidecar, and so does that
// of the backlog.
func TestConservationAtEveryScrape(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cfg := load(t, "TIDEMARK_BROKERS="+fake.ListenAddrs()[0], "TIDEMARK_INSTANCE=a", "TIDEMARK_MAX_OUT_OF_ORDERNESS=200ms", "TIDEMARK_IDLE_TIMEOUT=500ms")
	board := status.NewPublisher("v1")
	ended := make(chan error, 1)
	go func() { ended <- proxy.RunOn(t.Context(), cfg, slog.New(slog.DiscardHandler), board) }()
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	h := Handler(cfg, board)
	const records = 3000
	go func() {
		rnd := rand.New(rand.NewPCG(5, 0))
		for i := range records {
			ms := time.Now().UnixMilli() - rnd.Int64N(300) // some are late
			cl.Produce(t.Context(), &kgo.Record{
				Topic: "orders", Partition: int32(i % 3),
				Headers: []kgo.RecordHeader{{Key: "event-time", Value: strconv.AppendInt(nil, ms, 10)}},
			}, nil)
			time.Sleep(500 * time.Microsecond)
		}
	}()
	var out, late, scrapes float64
	for deadline := time.Now().Add(time.Minute); out+late < records; scrapes++ {
		if time.Now().After(deadline) {
			t.Fatalf("%g records are out after a minute", out+late)
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(100 * time.Millisecond):
		}
		v := values(t, body(get(h, "/metrics", elsewhere)))
		out, late = 0, 0
		for n := range 3 {
			of := func(name, more string) float64 {
				return v[fmt.Sprintf(`%s{topic="orders",partition="%d"%s}`, name, n, more)]
			}
			lates := 0.0
			for _, reason := range []string{"behind-watermark", "overflow", "future", "invalid-time", "duplicate"} {
				lates += of("tidemark_records_late_total", fmt.Sprintf(`,reason=%q`, reason))
			}
			missing := of("tidemark_records_read_total", "") + of("tidemark_records_carried_over", "") - of("tidemark_records_ordered_total", "") - lates -
				of("tidemark_records_dropped_total", "") - of("tidemark_records_lost_total", "") - of("tidemark_buffered_records", "")
			if missing != 0 || of("tidemark_records_unaccounted", "") != 0 || of("tidemark_backlog_records", "") < 0 {
				t.Errorf("partition %d: %g are missing", n, missing)
			}
			out += of("tidemark_records_ordered_total", "")
			late += lates
		}
	}
	if scrapes < 5 || late == 0 {
		t.Errorf("%g scrapes, %g late", scrapes, late)
	}
}

// values parses the text, as series and their values.
func values(t *testing.T, text string) map[string]float64 {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := p.TextToMetricFamilies(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	v := map[string]float64{}
	for line := range strings.Lines(text) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && !strings.HasPrefix(line, "#") {
			v[series+"}"], _ = strconv.ParseFloat(value, 64)
		}
	}
	return v
}

// A thousand partitions are scraped in some milliseconds, and their series can be told
// beforehand.
func BenchmarkScrape(b *testing.B) {
	st := example()
	one := st.Partitions[0]
	st.Partitions = nil
	for n := range 1000 {
		one.Partition = int32(n)
		st.Partitions = append(st.Partitions, one)
	}
	b.ReportAllocs()
	for b.Loop() {
		gather(st, noon)
	}
}

func TestProcess(t *testing.T) {
	var p process
	p.stat([]byte("42 (a ) b) S 4 5 6 7 8 9 10 11 12 13 1100 250 16 17 18 19 20 21 22 23 1000 25"))
	if want := (process{cpuSeconds: 13.5, residentBytes: 1000 * float64(os.Getpagesize())}); p != want {
		t.Errorf("%+v, want %+v", p, want)
	}
	p = process{}
	p.stat([]byte("cut off"))
	if p != (process{}) {
		t.Errorf("%+v", p)
	}
}

// The reference of all metrics is that of the table.
func TestMetricsReference(t *testing.T) {
	const file, begin, end = "../../docs/metrics.md", "<!-- metrics: written by go test ./proxy/admin -update -->\n", "<!-- /metrics -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	was, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	var b strings.Builder
	b.WriteString("| metric | kind | labels | |\n|---|---|---|---|\n")
	for _, f := range families {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, strings.ToLower(f.kind.String()), strings.Join(f.labels, ", "), strings.ReplaceAll(f.help, "|", `\|`))
	}
	if *update {
		whole := slices.Concat(before, []byte(begin), []byte(b.String()), []byte(end), after)
		if err := os.WriteFile(file, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(was) != b.String() {
		t.Errorf("the table in %s is not that of the code; go test ./proxy/admin -update writes it", file)
	}
}
