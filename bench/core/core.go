// Package core measures what Tidemark does with a record between fetching and
// producing it, without a broker: event time, watermark, push, release, header
// bytes. Beside it stands what one would write first.
package core

import (
	"container/heap"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// source hands out records of 200 bytes, ten a millisecond of event time: most
// within 20 ms of their place, 5 % up to two seconds behind. Their bytes are
// made before, so what it costs is to write thirteen digits.
type source struct {
	lags   [1 << 16]time.Duration
	record kgo.Record
	n      int64
}

const (
	begin = 1_763_700_000_000e6 // ns
	gap   = 100 * time.Microsecond
)

func newSource() *source {
	rng := rand.New(rand.NewPCG(1, 2))
	s := new(source)
	for i := range s.lags {
		s.lags[i] = min(time.Duration(rng.ExpFloat64()*float64(5*time.Millisecond)), 20*time.Millisecond)
		if rng.IntN(20) == 0 {
			s.lags[i] = time.Duration(rng.Int64N(int64(2 * time.Second)))
		}
	}
	s.record = kgo.Record{
		Topic: "source", Key: []byte("device-000000"), Value: []byte(strings.Repeat("v", 200)),
		Headers: []kgo.RecordHeader{{Key: "event-time", Value: make([]byte, 0, 20)}},
	}
	return s
}

// next returns the next record, in the place of the one before.
func (s *source) next() *kgo.Record {
	ms := (begin + s.n*int64(gap) - int64(s.lags[s.n&(1<<16-1)])) / 1e6
	h := &s.record.Headers[0]
	h.Value = strconv.AppendInt(h.Value[:0], ms, 10)
	s.record.Offset = s.n
	s.record.Timestamp = time.UnixMilli(ms)
	s.n++
	return &s.record
}

// orderer takes a record and calls out with what it releases.
type orderer interface {
	take(r *kgo.Record)
	held() int
}

// bound is the one that keeps about n records.
func bound(n int) time.Duration { return time.Duration(n) * gap }

// perCommit is how many records one commit interval brings.
const perCommit = 10_000

// tidemark is the path of a record as proxy/loop.go goes it.
type tidemark struct {
	extract *timestamp.Extractor
	state   *reorder.Partition
	engine  *reorder.Engine
	outbox  *emit.Outbox
	src     emit.Source
	out     func(*kgo.Record)
	taken   int
}

func newTidemark(held int, out func(*kgo.Record)) *tidemark {
	extract, err := timestamp.Parse("header:event-time,timestamp")
	if err != nil {
		panic(err) // it is constant
	}
	engine := reorder.NewEngine(reorder.Options{Bound: bound(held), MaxFuture: 24 * time.Hour}, 1<<40)
	return &tidemark{
		extract: extract, engine: engine, state: engine.Assign(reorder.Fresh(0, 0, 0), 0), out: out,
		outbox: emit.NewOutbox(emit.Headers{Prefix: "tidemark-", Watermark: true, SourceOffset: true}),
		src:    emit.Source{Topic: "source", Ordered: "source.ordered", Late: "source.late"},
	}
}

func (t *tidemark) take(r *kgo.Record) {
	at, err := t.extract.Extract(r)
	in := reorder.Record{Offset: r.Offset, Time: at, Invalid: err != nil, Size: emit.BodySize(r)}
	wall := watermark.Time(begin + r.Offset*int64(gap))
	verdict, body := t.state.Step(in, wall)
	if verdict == reorder.OnTime {
		emit.PutBody(body, r)
	} else {
		t.out(t.outbox.Late(t.src, r, emit.Lateness{Verdict: verdict, Time: at, Watermark: t.state.Watermark()}))
	}
	var due reorder.Release
	for t.state.Next(&due) {
		t.out(t.outbox.Ordered(t.src, &due))
	}
	if t.taken++; t.taken%perCommit == 0 {
		t.state.Advance()
		t.engine.Flight(uint64(t.taken/perCommit) + 1)
		t.engine.Landed(uint64(t.taken / perCommit))
		t.outbox.Reset()
	}
}

func (t *tidemark) held() int { return int(t.state.Status().Records) }

// pointers does the same with container/heap. Owning, it copies what it holds,
// as Tidemark does: a record that is kept as it was fetched keeps the memory
// of its whole batch. Not owning, it spares itself that.
type pointers struct {
	owning bool
	bound  int64 // ms
	newest int64
	heap   recordHeap
	out    func(*kgo.Record)
}

type heldRecord struct {
	ms  int64
	rec *kgo.Record
}

type recordHeap []*heldRecord

func (h recordHeap) Len() int      { return len(h) }
func (h recordHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h recordHeap) Less(i, j int) bool {
	return h[i].ms < h[j].ms || h[i].ms == h[j].ms && h[i].rec.Offset < h[j].rec.Offset
}

func (h *recordHeap) Push(x any) { *h = append(*h, x.(*heldRecord)) }

func (h *recordHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

func (p *pointers) take(r *kgo.Record) {
	ms := r.Timestamp.UnixMilli()
	for _, h := range r.Headers {
		if h.Key == "event-time" {
			ms, _ = strconv.ParseInt(string(h.Value), 10, 64)
		}
	}
	if p.newest != 0 && ms < p.newest-p.bound {
		p.out(p.late(r, ms))
		return
	}
	heap.Push(&p.heap, &heldRecord{ms, p.keep(r)})
	p.newest = max(p.newest, ms)
	for len(p.heap) > 0 && p.heap[0].ms < p.newest-p.bound {
		due := heap.Pop(&p.heap).(*heldRecord)
		mark := p.newest - p.bound - 1
		if len(p.heap) > 0 {
			mark = min(mark, p.heap[0].ms-1)
		}
		p.out(p.ordered(due, mark))
	}
}

// keep returns a record that stays as it is when r does not.
func (p *pointers) keep(r *kgo.Record) *kgo.Record {
	kept := *r
	kept.Headers = make([]kgo.RecordHeader, len(r.Headers), len(r.Headers)+2)
	for i, h := range r.Headers {
		kept.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: append([]byte(nil), h.Value...)}
	}
	if p.owning {
		kept.Key = append([]byte(nil), r.Key...)
		kept.Value = append([]byte(nil), r.Value...)
	}
	return &kept
}

func (p *pointers) ordered(due *heldRecord, mark int64) *kgo.Record {
	r := due.rec
	r.Topic = "source.ordered"
	r.Headers = append(r.Headers, number("tidemark-watermark", mark), number("tidemark-source-offset", r.Offset))
	return r
}

func (p *pointers) late(r *kgo.Record, ms int64) *kgo.Record {
	kept := p.keep(r)
	kept.Topic = "source.late"
	kept.Headers = append(kept.Headers, number("tidemark-late-by-ms", p.newest-p.bound-ms), number("tidemark-source-offset", r.Offset))
	return kept
}

func number(name string, n int64) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: []byte(strconv.FormatInt(n, 10))}
}

func (p *pointers) held() int { return len(p.heap) }
