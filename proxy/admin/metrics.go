package admin

import (
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Metrics are made from one status at each scrape, and not kept: a registry that counts
// beside the loop could disagree with it. So only the part of Prometheus' library that
// writes metrics is used; the tests use the rest. A registry would add 0.4 MB to the binary,
// and promhttp another 0.3 MB.

// family is a metric: one row of the reference in docs/metrics.md.
type family struct {
	name   string
	kind   dto.MetricType
	help   string
	labels []string
	from   func(s *sampling)
}

// sampling gathers the samples of one family.
type sampling struct {
	*status.Status
	now     time.Time
	labels  []string
	process process
	into    *dto.MetricFamily
}

const (
	counter   = dto.MetricType_COUNTER
	gauge     = dto.MetricType_GAUGE
	histogram = dto.MetricType_HISTOGRAM
)

var (
	ofPartition = []string{"topic", "partition"}
	withReason  = []string{"topic", "partition", "reason"}
	withSource  = []string{"topic", "partition", "source"}
	withState   = []string{"topic", "partition", "state"}
)

// families is the table of all metrics.
var families = []family{
	{"tidemark_build_info", gauge, "Always 1; the version of Tidemark and of Go.", []string{"version", "go_version"}, func(s *sampling) {
		s.add(1, s.Version, runtime.Version())
	}},
	{"tidemark_state", gauge, "1 for the state that Tidemark is in, see operations.md: HEALTHY, STARTING, DEGRADED or UNREACHABLE; else 0.", []string{"state"}, func(s *sampling) {
		for _, state := range status.States {
			s.add(truth(s.State == state), string(state))
		}
	}},
	{"tidemark_ready", gauge, "1 if the group is joined and all partitions of this instance are processed, else 0. A backlog does not matter.", nil, func(s *sampling) { s.add(truth(s.Ready)) }},
	{"tidemark_status_age_seconds", gauge, "Age of the status that all these numbers come from. Above a second or two, the loop is waiting for the brokers.", nil, func(s *sampling) {
		s.add(max(s.now.Sub(s.At), 0).Seconds())
	}},
	{"tidemark_probe_success", gauge, "1 if the brokers answered the probe, else 0: metadata asks any broker where partitions are, admin asks the group's coordinator.", []string{"probe"}, func(s *sampling) {
		s.probes(func(p status.Probe) float64 { return truth(p.Err == nil) })
	}},
	{"tidemark_probe_duration_seconds", gauge, "How long the brokers took to answer the probe.", []string{"probe"}, func(s *sampling) {
		s.probes(func(p status.Probe) float64 { return p.Took.Seconds() })
	}},

	{"tidemark_records_read_total", counter, "Records of the source that were judged for the first time. Records read again after a restart or an abort do not count.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Read) })},
	{"tidemark_records_carried_over", gauge, "Records that were held when this process took the partition over, less those that were held when it gave it up. Other processes read the former, and will release the latter.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Carried) })},
	{"tidemark_records_ordered_total", counter, "Records that went to the ordered topic.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Ordered) })},
	{"tidemark_records_late_total", counter, "Records that went to the late topic, by reason: behind-watermark, overflow (only because memory was short), future, invalid-time, duplicate.", withReason, func(s *sampling) {
		for i := range s.Partitions {
			p := &s.Partitions[i]
			for _, v := range reasons {
				s.add(float64(p.Late[v]), p.Topic, number(p.Partition), emit.Reason(v))
			}
		}
	}},
	{"tidemark_event_time_source_total", counter, "Records judged for the first time, by the source of TIDEMARK_EVENT_TIME that decided about their event times: the first that was present, usable or not. none: no source was.", withSource, func(s *sampling) {
		for i := range s.Partitions {
			p := &s.Partitions[i]
			for k, n := range p.DecidedBy {
				s.add(float64(n), p.Topic, number(p.Partition), s.Sources[k])
			}
		}
	}},
	{"tidemark_records_dropped_total", counter, "Duplicates that went to no output, with TIDEMARK_DUPLICATES=drop.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Dropped) })},
	{"tidemark_records_lost_total", counter, "Records that were held and are gone from the source, with TIDEMARK_ON_DATA_LOSS=continue.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Lost) })},
	{"tidemark_source_records_missing_total", counter, "Records that were gone from the source before they could be read, held before or not, with TIDEMARK_ON_DATA_LOSS=continue.", nil, count(func(c *fault.Counts) int64 { return c.Lost })},
	{"tidemark_buffered_records", gauge, "Records that were read and are not released yet.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Held) })},
	{"tidemark_records_unaccounted", gauge, "Read + carried over - ordered - late - dropped - lost - held. Anything but 0 is a bug in Tidemark.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Unaccounted()) })},
	{"tidemark_buffered_bytes", gauge, "Memory that held records take.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Bytes) })},
	{"tidemark_memory_limit_bytes", gauge, "Memory that held records of all partitions may take together: TIDEMARK_MEMORY.", nil, func(s *sampling) { s.add(float64(s.Memory)) }},
	{"tidemark_backlog_records", gauge, "Offsets of the source that are still to be read: its end less the next offset. This is how far Tidemark is behind; the lag of its group is not. Absent while that is not known, as when no broker answers.", ofPartition, func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) { return float64(p.Backlog()), p.End >= 0 })
	}},
	{"tidemark_unstable_records", gauge, "Offsets at the end of the source that cannot be read yet, because a producer's transaction is open.", ofPartition, func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) {
			return float64(max(p.End-p.Stable, 0)), p.End >= 0 && p.Stable >= 0
		})
	}},

	{"tidemark_held_open_records", gauge, "Offsets of a source or an output that readers of committed records do not see, because a transaction of another program has been open for some seconds. Absent where there is none.", ofPartition, func(s *sampling) {
		for _, o := range s.Blocked {
			s.add(float64(o.Behind), o.Topic, number(o.Partition))
		}
	}},

	{"tidemark_watermark_seconds", gauge, "The watermark, as an event time: seconds since 1970. Absent until there is one.", ofPartition, func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) {
			return seconds(p.Watermark), p.Watermark != watermark.None
		})
	}},
	{"tidemark_watermark_lag_seconds", gauge, "How far the watermark is behind the wall clock.", ofPartition, func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) {
			// By now and not by s.At: while the loop waits, the watermark does too.
			return float64(s.now.UnixNano())/1e9 - seconds(p.Watermark), p.Watermark != watermark.None
		})
	}},
	{"tidemark_newest_event_seconds", gauge, "The newest event time that was read: seconds since 1970. Absent until there is one.", ofPartition, func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) { return seconds(p.Newest), p.Newest != watermark.None })
	}},
	{"tidemark_bound_seconds", gauge, "The bound that has been learned, with TIDEMARK_WATERMARK=adaptive.", ofPartition, func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) { return p.Bound.Seconds(), p.Bound > 0 })
	}},
	{"tidemark_partition_state", gauge, "1 for the state that the partition is in, else 0: " + stateNames() + ".", withState, func(s *sampling) {
		for i := range s.Partitions {
			p := &s.Partitions[i]
			for _, state := range status.PartitionStates {
				s.add(truth(p.State == state), p.Topic, number(p.Partition), string(state))
			}
		}
	}},
	{"tidemark_epoch", gauge, "The epoch: the stretch of the output in which order holds. It increases when order begins anew.", ofPartition, each(func(p *status.Partition) float64 { return float64(p.Epoch) })},
	{"tidemark_disorder_seconds", histogram, "How far records came behind the newest event time before them, late ones included. Those beyond the bound are late.", []string{"topic"}, disorder},
	{"tidemark_release_latency_seconds", histogram, "How long records took beyond the bound: from the poll that moved the watermark past them to the end of the commit that made them visible.", nil, func(s *sampling) { s.distribution(&s.Latency) }},

	{"tidemark_commits_total", counter, "Commits: with TIDEMARK_DELIVERY=exactly-once, transactions.", nil, count(func(c *fault.Counts) int64 { return c.Commits })},
	{"tidemark_aborts_total", counter, "Times that everything since the last commit was aborted and done again.", nil, count(func(c *fault.Counts) int64 { return c.Aborts })},
	{"tidemark_rebalances_total", counter, "Generations of the group that this instance was part of.", nil, count(func(c *fault.Counts) int64 { return c.Rebalances })},
	{"tidemark_throttle_seconds_total", counter, "How long the brokers asked us to pause because of a quota, by the kind of request: produce, fetch, other.", []string{"request"}, func(s *sampling) {
		s.add(s.Counts.Throttled.Produce.Seconds(), "produce")
		s.add(s.Counts.Throttled.Fetch.Seconds(), "fetch")
		s.add(s.Counts.Throttled.Other.Seconds(), "other")
	}},
	{"tidemark_fencings_total", counter, "Errors that say that another process took this one's place.", nil, count(func(c *fault.Counts) int64 { return c.Fencings })},
	{"tidemark_sessions_total", counter, "Times that Tidemark began from the last commit: once at the start, and after each error that an abort cannot recover from.", nil, count(func(c *fault.Counts) int64 { return c.Sessions })},
	{"tidemark_errors_total", counter, "Errors that Tidemark recovered from, by class: broker (answered with an error), network (no answer), record (one is at fault).", []string{"class"}, func(s *sampling) {
		s.add(float64(s.Counts.Broker), "broker")
		s.add(float64(s.Counts.Network), "network")
		s.add(float64(s.Counts.Record), "record")
	}},
	{"tidemark_pauses_total", counter, "Times that a partition had to wait for slower ones, with TIDEMARK_MAX_DRIFT.", nil, count(func(c *fault.Counts) int64 { return c.Pauses })},
	{"tidemark_headers_shed_total", counter, "Headers that were left out of records that are too large with them.", nil, count(func(c *fault.Counts) int64 { return c.Shed })},

	{"process_start_time_seconds", gauge, "When the process started: seconds since 1970.", nil, func(s *sampling) { s.add(float64(s.Started.UnixMilli()) / 1e3) }},
	{"process_cpu_seconds_total", counter, "Processor time, user and system.", nil, func(s *sampling) { s.known(s.process.cpuSeconds) }},
	{"process_resident_memory_bytes", gauge, "Resident memory.", nil, func(s *sampling) { s.known(s.process.residentBytes) }},
	{"process_open_fds", gauge, "Open file descriptors.", nil, func(s *sampling) { s.known(s.process.openFiles) }},
	{"go_goroutines", gauge, "Goroutines.", nil, func(s *sampling) { s.add(float64(runtime.NumGoroutine())) }},
	{"go_memory_classes_total_bytes", gauge, "Memory that the Go runtime has from the system.", nil, func(s *sampling) { s.known(s.process.goBytes) }},
}

func scrape(board Board) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		all := gather(board.Status(r.Context()), time.Now())
		format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeProtoDelim))
		w.Header().Set("Content-Type", string(format))
		var to io.Writer = w
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			to = z
		}
		encoder := expfmt.NewEncoder(to, format)
		for _, f := range all {
			if encoder.Encode(f) != nil {
				return // nobody listens any more
			}
		}
	}
}

// gather makes all metrics of one status.
func gather(st *status.Status, now time.Time) (all []*dto.MetricFamily) {
	self := readProcess()
	for i := range families {
		f := &families[i]
		s := sampling{st, now, f.labels, self, &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: &f.kind}}
		if f.from(&s); len(s.into.Metric) > 0 {
			all = append(all, s.into)
		}
	}
	return all
}

// add adds a sample, with values for the labels of its family.
func (s *sampling) add(v float64, labels ...string) {
	m := s.metric(labels)
	if *s.into.Type == counter {
		m.Counter = &dto.Counter{Value: &v}
	} else {
		m.Gauge = &dto.Gauge{Value: &v}
	}
}

func (s *sampling) metric(values []string) *dto.Metric {
	m := &dto.Metric{}
	for i := range values {
		m.Label = append(m.Label, &dto.LabelPair{Name: &s.labels[i], Value: &values[i]})
	}
	s.into.Metric = append(s.into.Metric, m)
	return m
}

// known adds a sample unless it is below zero, which stands for unknown.
func (s *sampling) known(v float64) {
	if v >= 0 {
		s.add(v)
	}
}

// each adds a sample for every partition that has one.
func (s *sampling) each(value func(*status.Partition) (v float64, ok bool)) {
	for i := range s.Partitions {
		if v, ok := value(&s.Partitions[i]); ok {
			s.add(v, s.Partitions[i].Topic, number(s.Partitions[i].Partition))
		}
	}
}

func each(value func(*status.Partition) float64) func(*sampling) {
	return func(s *sampling) {
		s.each(func(p *status.Partition) (float64, bool) { return value(p), true })
	}
}

func count(value func(*fault.Counts) int64) func(*sampling) {
	return func(s *sampling) { s.add(float64(value(&s.Counts))) }
}

func (s *sampling) probes(value func(status.Probe) float64) {
	for _, p := range []struct {
		name string
		status.Probe
	}{{"metadata", s.Probes.Metadata}, {"admin", s.Probes.Admin}} {
		if !p.At.IsZero() {
			s.add(value(p.Probe), p.name)
		}
	}
}

// disorder is one histogram for each topic: one for every partition would be many series.
func disorder(s *sampling) {
	for _, topic := range slices.Sorted(maps.Keys(s.Disorder)) {
		s.distribution(s.Disorder[topic], topic)
	}
}

// distribution adds a histogram, in both forms: classic buckets, at the powers of two,
// and native ones.
func (s *sampling) distribution(h *status.Histogram, labels ...string) {
	n, sum := h.Count(), h.Seconds
	schema, threshold, zero := int32(2), status.HistogramLimit(-1), h.Zero
	d := &dto.Histogram{SampleCount: &n, SampleSum: &sum, Schema: &schema, ZeroThreshold: &threshold, ZeroCount: &zero}
	bucket := func(le float64, below uint64) {
		d.Bucket = append(d.Bucket, &dto.Bucket{UpperBound: &le, CumulativeCount: &below})
	}
	below := h.Zero
	bucket(threshold, below)
	for class, k := range h.Classes {
		if below += k; (class+1)%status.HistogramPerOctave == 0 {
			bucket(status.HistogramLimit(class), below)
		}
	}
	d.PositiveSpan, d.PositiveDelta = native(h)
	s.metric(labels).Histogram = d
}

// native writes classes in Prometheus' native format: spans of non-empty buckets, each with
// its distance from the span before, and in them the deltas of the counts. Bucket 0 ends at
// one second.
func native(h *status.Histogram) (spans []*dto.BucketSpan, deltas []int64) {
	const first = status.HistogramLeast*status.HistogramPerOctave + 1
	end, before := int32(0), int64(0)
	add := func(class int, n uint64) {
		if n == 0 {
			return
		}
		at := int32(first + class)
		if len(spans) == 0 || at != end {
			offset, length := at-end, uint32(0)
			spans = append(spans, &dto.BucketSpan{Offset: &offset, Length: &length})
		}
		*spans[len(spans)-1].Length++
		deltas = append(deltas, int64(n)-before)
		end, before = at+1, int64(n)
	}
	for class, n := range h.Classes {
		add(class, n)
	}
	add(len(h.Classes), h.Over)
	if len(spans) == 0 { // or it would not be taken for a native one
		spans = append(spans, &dto.BucketSpan{Offset: new(int32), Length: new(uint32)})
	}
	return spans, deltas
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func number(n int32) string { return strconv.Itoa(int(n)) }

func seconds(t watermark.Time) float64 { return float64(t) / 1e9 }

func stateNames() string {
	var names []string
	for _, s := range status.PartitionStates {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}
