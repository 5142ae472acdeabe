package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// statusJSON is the form of /status. Names end in their unit. Times of events are ms
// since 1970, null where there are none; other times are RFC 3339.
type statusJSON struct {
	State     status.State `json:"state"`
	Reason    string       `json:"reason"`
	Reasons   []string     `json:"reasons"` // the same, one by one, the most important first
	Hints     []string     `json:"hints"`   // what to do about each of them
	Ready     bool         `json:"ready"`
	NotReady  string       `json:"not_ready,omitempty"`
	Instance  string       `json:"instance"`
	Group     string       `json:"group"`
	ClusterID string       `json:"cluster_id"`
	Version   string       `json:"version"`
	StartedAt time.Time    `json:"started_at"`
	At        time.Time    `json:"at"` // when the partitions were as they are shown

	Topics        []string `json:"topics"`
	EventTime     string   `json:"event_time"` // where event times are looked for, in words
	Delivery      string   `json:"delivery"`
	Watermark     string   `json:"watermark"`
	BoundMs       int64    `json:"bound_ms"`
	MaxFutureMs   int64    `json:"max_future_ms"` // how far ahead of the wall clock event times may be; 0: any
	IdleTimeoutMs int64    `json:"idle_timeout_ms"`
	MemoryBytes   int64    `json:"memory_bytes"`
	BufferedBytes int64    `json:"buffered_bytes"`

	Commits    int64            `json:"commits"`
	Aborts     int64            `json:"aborts"`
	Rebalances int64            `json:"rebalances"`
	Errors     map[string]int64 `json:"errors"` // by class

	OpenTransactions []transactionJSON     `json:"open_transactions"` // of others, that hold up us or readers of outputs
	Probes           map[string]*probeJSON `json:"probes"`
	ProducersOff     int                   `json:"producers_off"` // how many producers' clocks are off
	Producers        []producerJSON        `json:"producers"`     // some of them, those that are off the most first
	Fetches          spreadJSON            `json:"fetches"`       // how long they took
	Partitions       []partitionJSON       `json:"partitions"`
}

// transactionJSON is an open transaction of somebody else and a partition that it holds up.
type transactionJSON struct {
	Topic           string     `json:"topic"`
	Partition       int32      `json:"partition"`
	Output          bool       `json:"output"`
	FirstOffset     int64      `json:"first_offset"`
	Behind          int64      `json:"behind"`
	ProducerID      *int64     `json:"producer_id"`
	TransactionalID *string    `json:"transactional_id"`
	Since           *time.Time `json:"since"`
	Unknown         string     `json:"unknown,omitempty"`
}

// producerJSON is a producer whose clock is off.
type producerJSON struct {
	Topic    string `json:"topic"`
	Producer string `json:"producer"` // the value of the header that tells producers apart
	Finding  string `json:"finding"`
	AheadMs  int64  `json:"ahead_ms"` // below 0: it is behind
}

// clocksJSON is the evidence about the clocks that the records of a partition passed.
type clocksJSON struct {
	Finding  string     `json:"finding"` // empty: nothing is off
	Records  int64      `json:"records"`
	Appended bool       `json:"appended"`
	Fresh    bool       `json:"fresh"`
	Written  spreadJSON `json:"written"`
	Age      spreadJSON `json:"age"`
	Transit  spreadJSON `json:"transit"`
}

type spreadJSON struct {
	Count       int64 `json:"count"`
	MeanMs      int64 `json:"mean_ms"`
	DeviationMs int64 `json:"deviation_ms"`
	LeastMs     int64 `json:"least_ms"`
	MedianMs    int64 `json:"median_ms"`
	P99Ms       int64 `json:"p99_ms"`
}

func millisOf(s clocks.Spread) spreadJSON {
	return spreadJSON{s.Count, s.Mean.Milliseconds(), s.Deviation.Milliseconds(), s.Least.Milliseconds(), s.Median.Milliseconds(), s.P99.Milliseconds()}
}

type probeJSON struct {
	At     time.Time `json:"at"`
	TookMs float64   `json:"took_ms"`
	Error  string    `json:"error,omitempty"`
}

type partitionJSON struct {
	Topic     string                `json:"topic"`
	Partition int32                 `json:"partition"`
	State     status.PartitionState `json:"state"`
	Reasons   []string              `json:"reasons"` // in short, those that are about it
	Epoch     uint32                `json:"epoch"`

	WatermarkMs *int64 `json:"watermark_ms"`
	NewestMs    *int64 `json:"newest_ms"` // event time
	BoundMs     *int64 `json:"bound_ms,omitempty"`

	NextOffset      int64  `json:"next_offset"`
	CommittedOffset int64  `json:"committed_offset"`
	EndOffset       *int64 `json:"end_offset"`
	Backlog         *int64 `json:"backlog"`

	BufferedRecords int64 `json:"buffered_records"`
	BufferedBytes   int64 `json:"buffered_bytes"`

	Read             int64            `json:"read"`
	CarriedOver      int64            `json:"carried_over"`
	Ordered          int64            `json:"ordered"`
	Late             map[string]int64 `json:"late"`
	DecidedBy        map[string]int64 `json:"event_times_from"` // records, by source
	Dropped          int64            `json:"dropped"`
	Lost             int64            `json:"lost"`
	OrderedPerSecond float64          `json:"ordered_per_second"`
	LatePerSecond    float64          `json:"late_per_second"`

	EventTimeFinding string `json:"event_time_finding,omitempty"`
	AbsentSource     string `json:"absent_source,omitempty"` // of event times, in words
	LateCause        string `json:"late_cause,omitempty"`    // why records are behind the watermark lately, and what to do

	Clocks clocksJSON `json:"clocks"`

	Invalid *invalidJSON `json:"last_invalid_event_time,omitempty"`

	WaitsFor string     `json:"waits_for"`
	NextMs   *int64     `json:"next_event_time_ms"`
	DueAt    *time.Time `json:"next_release_due_at"`
}

// invalidJSON is the last record without a usable event time.
type invalidJSON struct {
	Offset int64  `json:"offset"`
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"`
}

// reasons are those for which a record may be late.
var reasons = []reorder.Verdict{reorder.BehindWatermark, reorder.Overflow, reorder.Future, reorder.InvalidTime, reorder.Duplicate}

func statusHandler(board Board) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(toJSON(board.Status(r.Context())))
	}
}

func toJSON(st *status.Status) statusJSON {
	j := statusJSON{
		State: st.State, Reason: st.Reason, Reasons: append([]string{}, st.Reasons...), Hints: append([]string{}, st.Hints...), Ready: st.Ready, NotReady: st.NotReady,
		Instance: st.Instance, Group: st.Group, ClusterID: st.Cluster, Version: st.Version, StartedAt: st.Started.UTC(), At: st.At.UTC(),
		Topics: st.Topics, EventTime: st.EventTime, Delivery: string(st.Delivery), Watermark: string(st.Strategy),
		BoundMs: st.Bound.Milliseconds(), IdleTimeoutMs: st.IdleTimeout.Milliseconds(), MaxFutureMs: st.MaxFuture.Milliseconds(), MemoryBytes: st.Memory, BufferedBytes: st.Bytes,
		Commits: st.Counts.Commits, Aborts: st.Counts.Aborts, Rebalances: st.Counts.Rebalances,
		Errors:     map[string]int64{"broker": st.Counts.Broker, "network": st.Counts.Network, "record": st.Counts.Record},
		Probes:     map[string]*probeJSON{"metadata": probe(st.Probes.Metadata), "admin": probe(st.Probes.Admin)},
		Partitions: make([]partitionJSON, 0, len(st.Partitions)), OpenTransactions: make([]transactionJSON, 0, len(st.Blocked)),
	}
	for _, o := range st.Blocked {
		j.OpenTransactions = append(j.OpenTransactions, transaction(o))
	}
	j.ProducersOff, j.Producers, j.Fetches = st.ProducersOff, []producerJSON{}, millisOf(st.Fetches)
	for _, p := range st.Producers {
		j.Producers = append(j.Producers, producerJSON{p.Topic, p.Name, p.Finding.String(), p.Lead.Milliseconds()})
	}
	for i := range st.Partitions {
		j.Partitions = append(j.Partitions, partition(st, &st.Partitions[i]))
	}
	return j
}

func transaction(o fault.OpenTransaction) transactionJSON {
	j := transactionJSON{Topic: o.Topic, Partition: o.Partition, Output: o.Output, FirstOffset: o.Offset, Behind: o.Behind, ProducerID: known(o.ProducerID)}
	if o.TransactionalID != "" {
		j.TransactionalID = &o.TransactionalID
	}
	if !o.Since.IsZero() {
		since := o.Since.UTC()
		j.Since = &since
	}
	if o.Unknown != nil {
		j.Unknown = o.Unknown.Error()
	}
	return j
}

func probe(p status.Probe) *probeJSON {
	if p.At.IsZero() {
		return nil
	}
	j := &probeJSON{At: p.At.UTC(), TookMs: float64(p.Took) / float64(time.Millisecond)}
	if p.Err != nil {
		j.Error = p.Err.Error()
	}
	return j
}

func partition(st *status.Status, p *status.Partition) partitionJSON {
	j := partitionJSON{
		Topic: p.Topic, Partition: p.Partition, State: p.State, Reasons: make([]string, 0, len(p.Reasons)), Epoch: p.Epoch,
		WatermarkMs: millis(p.Watermark), NewestMs: millis(p.Newest),
		NextOffset: p.Next, CommittedOffset: p.Committed, EndOffset: known(p.End), Backlog: known(p.Backlog()),
		BufferedRecords: p.Held, BufferedBytes: p.Bytes,
		Read: p.Read, CarriedOver: p.Carried, Ordered: p.Ordered, Late: map[string]int64{}, DecidedBy: map[string]int64{}, AbsentSource: p.Absent, LateCause: p.LateCause, EventTimeFinding: p.EventTimeFinding, Dropped: p.Dropped, Lost: p.Lost,
		OrderedPerSecond: p.OrderedRate, LatePerSecond: p.LateRate,
		WaitsFor: p.Hold.Words, NextMs: millis(p.Hold.Event),
	}
	for _, kind := range p.Reasons {
		j.Reasons = append(j.Reasons, kind.Short())
	}
	c := &p.Clocks
	j.Clocks = clocksJSON{p.Finding.String(), c.Records, c.Appended, c.Fresh, millisOf(c.Written), millisOf(c.Age), millisOf(c.Transit)}
	for _, v := range reasons {
		j.Late[emit.Reason(v)] = p.Late[v]
	}
	for i, n := range p.DecidedBy {
		j.DecidedBy[st.Sources[i]] = n
	}
	if i := p.Invalid; i.Err != nil {
		j.Invalid = &invalidJSON{i.Offset, i.Err.Error(), i.Hint}
	}
	if p.Bound > 0 {
		ms := p.Bound.Milliseconds()
		j.BoundMs = &ms
	}
	if !p.Hold.At.IsZero() {
		at := p.Hold.At.UTC()
		j.DueAt = &at
	}
	return j
}

func millis(t watermark.Time) *int64 {
	if t == watermark.None {
		return nil
	}
	ms := t.Millis()
	return &ms
}

func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}
