// Package check verifies what a candidate put out with the checks of `tidemark
// verify`, whoever the candidate is. That command reads Tidemark's commits and
// headers, which others do not write; here both are made up from the source:
// a record's identity stands in its value, and what should be held and what is
// late follows from the event times alone.
package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/bench/cluster"
	"github.com/tidemarkhq/tidemark/bench/workload"
	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Rules say what a candidate promises.
type Rules struct {
	Orders  bool // and what is late goes to the late topic
	Splits  bool // does not order, but knows what is late
	Repeats bool // at least once
	Labels  bool // adds workload.LabelHeader
}

// Result is what was found.
type Result struct {
	Ordered int64    `json:"ordered"`
	Late    int64    `json:"late"`
	Held    int64    `json:"held"` // not out, as it should be
	Faults  []string `json:"faults,omitempty"`
	last    map[string][]int64
}

// Last is the offset of the last record of an output partition, -1 if it has none.
func (r *Result) Last(topic string, partition int32) int64 { return r.last[topic][partition] }

func (r *Result) faultf(format string, args ...any) {
	if len(r.Faults) < 20 {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// Outputs checks the outputs of a topic against it.
func Outputs(ctx context.Context, broker, topic string, partitions int32, rules Rules) (*Result, error) {
	extract, err := timestamp.Parse("header:" + workload.EventTimeHeader)
	if err != nil {
		return nil, err
	}
	v := &verification{
		Result: Result{last: map[string][]int64{}}, rules: rules, broker: broker, topic: topic,
		extract: extract, parts: make([]*part, partitions),
	}
	for i := range v.parts {
		v.parts[i] = &part{late: map[int64]int64{}, newest: watermark.None}
	}
	return v.run(ctx)
}

type verification struct {
	Result
	rules   Rules
	broker  string
	topic   string
	extract *timestamp.Extractor
	parts   []*part
}

// part is a partition as the source tells it.
type part struct {
	newest  watermark.Time
	next    int64
	late    map[int64]int64 // the watermark, ms, that a late record was behind
	times   []watermark.Time
	checker *verify.Checker
}

func (v *verification) run(ctx context.Context) (*Result, error) {
	ordered, late := v.topic+".ordered", v.topic+".late"
	if err := v.read(ctx, v.topic, v.survey); err != nil {
		return nil, err
	}
	for i, p := range v.parts {
		rules := verify.Rules{
			Topic: v.topic, Ordered: ordered, Late: late, Partition: int32(i), Prefix: "tidemark-",
			EventTime: v.extract.Extract, AtLeastOnce: v.rules.Repeats,
		}
		p.checker = verify.NewChecker(rules, v.scope(p))
	}
	err := cmp.Or(v.read(ctx, v.topic, v.raw), v.read(ctx, ordered, v.ordered), v.read(ctx, late, v.late))
	if err != nil {
		return nil, err
	}
	checkers := make([]*verify.Checker, len(v.parts))
	for i, p := range v.parts {
		checkers[i] = p.checker
	}
	for _, report := range verify.Reports(checkers) {
		v.Ordered += report.Ordered
		v.Held += report.Buffered
		for _, n := range report.Late {
			v.Late += n
		}
		for _, kind := range verify.Kinds {
			faults, has := report.Faults[kind]
			if !has || kind == verify.KindOutOfOrder && !v.rules.Orders {
				continue
			}
			v.faultf("partition %d: %d %s, first: source offset %d, %s",
				report.Partition, faults.Total, kind, faults.First[0].SourceOffset, faults.First[0].Why)
		}
	}
	return &v.Result, nil
}

// survey applies the law of the bounded watermark to a source record: judged
// first, then it moves the maximum.
func (v *verification) survey(r *kgo.Record) {
	p := v.parts[r.Partition]
	if id, ok := workload.Identity(r.Value); !ok || id != r.Offset {
		v.faultf("the source is not a workload: offset %d says it is %d", r.Offset, id)
	}
	t, err := v.extract.Extract(r)
	if err != nil {
		v.faultf("the source is not a workload: %v", err)
	}
	if p.newest != watermark.None && t <= p.behind() {
		p.late[r.Offset] = p.behind().Millis()
	}
	p.newest = max(p.newest, t)
	p.next = r.Offset + 1
	p.times = append(p.times, t)
}

// behind is the watermark that the maximum gives.
func (p *part) behind() watermark.Time { return p.newest.Sub(workload.Bound) - 1 }

// scope is the commit that Tidemark would have made at the end of the source.
func (v *verification) scope(p *part) verify.Scope {
	s := verify.Scope{Committed: p.next, Next: p.next, W: p.behind(), Quiet: true}
	if !v.rules.Orders {
		s.W = watermark.Max
		return s
	}
	for i, t := range slices.Backward(p.times) {
		if _, late := p.late[int64(i)]; !late && t > p.behind() {
			s.Committed = int64(i)
			s.Buffered++
			s.BufferedSum += reorder.OffsetHash(int64(i))
		}
	}
	return s
}

func (v *verification) raw(r *kgo.Record) { v.parts[r.Partition].checker.Raw(r) }

func (v *verification) ordered(r *kgo.Record) {
	p := v.parts[r.Partition]
	id, _ := workload.Identity(r.Value)
	if _, late := p.late[id]; late && (v.rules.Orders || v.rules.Splits) {
		v.faultf("partition %d: source offset %d is late and came out as if it were not", r.Partition, id)
	}
	if v.rules.Labels {
		r.Headers = slices.DeleteFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == workload.LabelHeader })
	}
	if !has(r, "tidemark-source-offset") {
		add(r, "source-offset", id)
	}
	p.checker.Ordered(r)
}

func (v *verification) late(r *kgo.Record) {
	p := v.parts[r.Partition]
	id, _ := workload.Identity(r.Value)
	mark, late := p.late[id]
	if !late {
		v.faultf("partition %d: source offset %d is not late and came out as if it were", r.Partition, id)
	}
	if !has(r, "tidemark-source-offset") && id < int64(len(p.times)) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tidemark-late-reason", Value: []byte("behind-watermark")})
		add(r, "late-by-ms", mark-p.times[id].Millis())
		add(r, "watermark", mark)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tidemark-source-topic", Value: []byte(v.topic)})
		add(r, "source-partition", int64(r.Partition))
		add(r, "source-offset", id)
		add(r, "late-at", mark) // nobody knows; it only has to be there
	}
	p.checker.Late(r)
}

func has(r *kgo.Record, name string) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
}

func add(r *kgo.Record, name string, n int64) {
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tidemark-" + name, Value: strconv.AppendInt(nil, n, 10)})
}

// read gives take the committed records of a topic, each partition in order.
func (v *verification) read(ctx context.Context, topic string, take func(*kgo.Record)) error {
	last := make([]int64, len(v.parts))
	for p := range last {
		last[p] = -1
	}
	err := cluster.Read(ctx, v.broker, topic, func(r *kgo.Record) {
		last[r.Partition] = r.Offset
		take(r)
	})
	v.last[topic] = last
	return err
}

// String says it in a line.
func (r *Result) String() string {
	if len(r.Faults) == 0 {
		return fmt.Sprintf("HOLDS: %d ordered, %d late, %d held", r.Ordered, r.Late, r.Held)
	}
	return "DOES NOT HOLD: " + strings.Join(r.Faults, "; ")
}
