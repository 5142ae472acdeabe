package verify

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// triple is what the three topics of a partition and the group's commit look like after
// a run of the real engine, with all that is known of how they came about.
type triple struct {
	seed      uint64
	rules     Rules
	scope     Scope
	compacted bool
	repeats   bool // at least once: some outputs came again
	topic     int  // the one that the source is now

	raw       []*kgo.Record
	ordered   []*made
	late      []*made
	dropped   int64
	untouched bool // nothing was deleted or compacted, and there was no reset
}

// made is an output and what it was made of.
type made struct {
	rec           *kgo.Record
	own           int // of its headers, those of the source
	late, bare    bool
	source, epoch int64
	topic         int // which topic of the source's name
	time          watermark.Time
	verdict       reorder.Verdict
}

// maker runs one partition from a seed.
type maker struct {
	*rand.Rand
	t       *triple
	opts    reorder.Options
	headers emit.Headers
	limit   int
	schemas bool
	imitate bool
	steady  bool // only records move the watermark

	eng   *reorder.Engine
	p     *reorder.Partition
	box   *emit.Outbox
	now   watermark.Instant
	heard watermark.Stretch // what the broker has said of the end
	topic int
	next  int64 // offset of the next source record

	ordered, late []*made // durable
	pending       []*made
	counted       int64 // dropped since the commit
	dropped       int64
	committed     reorder.Snapshot
	commits       []reorder.Snapshot // of this generation
}

const testLimit = 1200

func (m *maker) one(in int) bool { return m.IntN(in) == 0 }

func choose[T any](m *maker, of ...T) T { return of[m.IntN(len(of))] }

func newMaker(seed uint64) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 14)), t: &triple{seed: seed, untouched: true}}
	m.schemas, m.imitate = m.one(5), m.one(4)
	m.headers = emit.Headers{Prefix: choose(m, "tidemark-", "t.", "tidemark-"), Watermark: !m.one(5), SourceOffset: true, EventTime: m.one(2)}
	m.limit = choose(m, 0, testLimit)
	m.settings()
	r := &m.t.rules
	*r = Rules{
		Topic: testTopic, Ordered: testTopic + ".ordered", Late: testTopic + ".late", Partition: 3, Prefix: m.headers.Prefix,
		Required: m.headers, OrderedMax: m.limit, LateMax: m.limit, EventTime: schemaTime, AtLeastOnce: m.one(4),
	}
	r.Identity = choose(m, emit.Identity{}, emit.Identity{}, emit.Identity{Kind: emit.HeaderIdentity, Header: "h"}, emit.Identity{Kind: emit.KeyIdentity}, emit.Identity{Kind: emit.BytesIdentity})
	r.Dropped = r.Identity.Kind != emit.NoIdentity && m.one(2)
	if r.AtLeastOnce && m.one(2) {
		// An epoch that begins by re-anchoring is judged once more after a crash, and may
		// begin elsewhere if memory or the clock have moved the watermark since.
		m.opts.ReanchorAfter = 0
	} else if r.AtLeastOnce {
		m.steady, m.schemas = true, false
	}
	if m.schemas {
		r.SchemaID = func(r *kgo.Record) (string, bool) {
			id, ok := framed(r.Value)
			return fmt.Sprint(id), ok
		}
	}
	return m
}

// settings draws the settings that may change whenever a process starts.
func (m *maker) settings() {
	m.opts = reorder.Options{
		Strategy: choose(m, watermark.Bounded, watermark.Bounded, watermark.WindowMin, watermark.Punctuated, watermark.Adaptive),
		Bound:    choose(m, 0, 1, 10*time.Millisecond, 40*time.Millisecond), TargetLate: 100_000,
		Window: 30 * time.Millisecond, Lateness: choose(m, 0, 5*time.Millisecond),
		IdleTimeout: time.Second, MaxFuture: choose(m, 0, 200*time.Millisecond), ReanchorAfter: choose(m, 0, 0, 2, 3),
	}
	m.headers.Windows = nil
	if m.one(3) {
		m.headers.Windows = testWindows[m.IntN(len(testWindows))]
	}
}

var testWindows = func() (sets []window.Set) {
	for _, text := range []string{"tumbling:7ms", "hopping:10ms/3ms,tumbling:7ms"} {
		s, err := window.Parse(text)
		if err != nil {
			panic(err)
		}
		sets = append(sets, s)
	}
	return sets
}()

// framed is the schema id of a value that begins with '#'.
func framed(value []byte) (uint32, bool) {
	if len(value) < 2 || value[0] != '#' {
		return 0, false
	}
	return uint32(value[1]), true
}

// schemaTime is the reading of event times when the outputs are checked: the registry
// still lacks the schemas above 200.
func schemaTime(r *kgo.Record) (watermark.Time, error) {
	if id, ok := framed(r.Value); ok && id > 200 {
		return watermark.None, errTime
	}
	return testTime(r)
}

// timeAtRun is that of the run: the registry lacks the schemas above 100.
func (m *maker) timeAtRun(r *kgo.Record) (t watermark.Time, invalid, outside bool) {
	if id, ok := framed(r.Value); ok && m.schemas && id > 100 {
		return watermark.None, true, true
	}
	t, err := testTime(r)
	return t, err != nil, false
}

// write appends records to the source.
func (m *maker) write(n int) {
	for range n {
		m.next += int64(choose(m, 0, 0, 0, 2))
		i := m.next
		ns := i*3_000_000 + m.Int64N(60_000_000) - 30_000_000
		if m.one(3) {
			ns = i * 3_000_000 / 9_000_000 * 9_000_000
		}
		if m.one(15) {
			ns -= 300_000_000
		}
		at := strconv.FormatInt(ns, 10)
		switch m.IntN(24) {
		case 0:
			at = "soon"
		case 1:
			at = strconv.FormatInt(ns+900_000_000, 10)
		}
		r := &kgo.Record{Offset: i, Key: choose(m, nil, []byte{}, []byte("k"), []byte("l")), Timestamp: time.UnixMilli(10*i + int64(m.topic))}
		r.Value = fmt.Appendf(nil, "%d of %d", i, m.topic)
		if m.one(12) {
			r.Value = nil
		}
		if m.schemas && m.one(5) {
			r.Value = append([]byte{'#', byte(choose(m, 50, 150, 250))}, r.Value...)
		}
		r.Headers = []kgo.RecordHeader{{Key: "event-time", Value: []byte(at)}}
		names := []string{"h", "h", "trace", "marker"}
		if m.imitate {
			for _, w := range []string{emit.WordEpoch, emit.WordWatermark, emit.WordSourceOffset, emit.WordLateAt, emit.WordEventTime, "window-tumbling:7ms"} {
				names = append(names, m.headers.Prefix+w)
			}
		}
		for range m.IntN(4) {
			h := kgo.RecordHeader{Key: names[m.IntN(len(names))], Value: choose(m, nil, []byte{}, []byte("1"), []byte("77"))}
			if h.Key == "marker" {
				h.Value = strconv.AppendInt(nil, ns-20_000_000, 10)
			}
			r.Headers = append(r.Headers, h)
		}
		if m.limit > 0 && m.one(6) {
			r.Value = append(r.Value, make([]byte, max(0, m.limit-emit.WireSize(r)-m.IntN(choose(m, 40, 150, 400))))...)
		}
		if n := len(m.t.raw); n > 0 && m.one(4) {
			of := m.t.raw[max(0, n-1-m.IntN(5))]
			r.Key, r.Value, r.Headers = of.Key, of.Value, of.Headers
			if m.one(2) {
				r.Timestamp = of.Timestamp
			}
		}
		m.t.raw = append(m.t.raw, r)
		m.next++
	}
}

// assign begins a process at the commit.
func (m *maker) assign() {
	m.pending, m.counted = nil, 0
	m.opts.Identity = nil
	if m.t.rules.Identity.Kind != emit.NoIdentity {
		m.opts.Identity = m.t.rules.Identity
	}
	m.eng = reorder.NewEngine(m.opts, math.MaxInt64)
	m.eng.Tick(m.now)
	m.heard = watermark.Stretch{}
	m.box = emit.NewOutbox(m.headers)
	m.p = m.eng.Assign(m.committed, m.now)
	if end, replaying := m.p.Replaying(); replaying {
		for _, r := range m.t.raw {
			if r.Offset < m.p.Position() || r.Offset >= end {
				continue
			}
			t, err := testTime(r)
			v, body := m.p.Step(reorder.Record{Offset: r.Offset, Time: t, Invalid: err != nil, Size: emit.BodySize(r)}, m.wall(r))
			if v == reorder.OnTime || v == reorder.Remembered {
				emit.PutBody(body, r)
			}
		}
		m.p.EndReplay(math.MaxInt64, true)
	}
	m.drain()
}

func (m *maker) wall(r *kgo.Record) watermark.Time { return watermark.Time(r.Offset * 3_000_000) }

// more returns the next source record to read.
func (m *maker) more() *kgo.Record {
	for _, r := range m.t.raw {
		if r.Offset >= m.p.Position() {
			return r
		}
	}
	return nil
}

func (m *maker) step(r *kgo.Record) {
	t, invalid, outside := m.timeAtRun(r)
	in := reorder.Record{Offset: r.Offset, Time: t, Invalid: invalid, Outside: outside, Size: emit.BodySize(r)}
	for outside && !m.p.Settles(r.Offset) {
		m.p.MakeRoom()
		m.moved()
	}
	v, body := m.p.Step(in, m.wall(r))
	if v == reorder.Flush {
		m.drain()
		v, body = m.p.Step(in, m.wall(r))
	}
	w, epoch := m.p.Watermark(), m.p.Epoch()
	if m.opts.Strategy == watermark.Punctuated {
		for _, h := range slices.Backward(r.Headers) {
			if ns, err := strconv.ParseInt(string(h.Value), 10, 64); h.Key == "marker" && err == nil {
				m.p.Mark(watermark.Time(ns), m.wall(r))
				break
			}
		}
	}
	switch v {
	case reorder.OnTime:
		emit.PutBody(body, r)
	default:
		why := emit.Lateness{Verdict: v, Time: t, Watermark: w, Epoch: epoch, AtMs: 1234}
		if id, ok := framed(r.Value); v == reorder.InvalidTime && m.schemas && ok {
			why.Schema, why.SchemaID = emit.KnownSchema, fmt.Sprint(id)
			if outside {
				why.Schema = emit.UnknownSchema
			}
		}
		if (v == reorder.BehindWatermark || v == reorder.Overflow) && m.one(2) && m.repeated(r, t, int64(epoch)) {
			why.Verdict = reorder.Duplicate
		}
		m.put(m.box.Late(m.source(), r, why), made{late: true, source: r.Offset, epoch: int64(epoch), time: t, verdict: why.Verdict})
	}
	m.drain()
}

// repeated reports whether a late record repeats one that came out in order.
func (m *maker) repeated(r *kgo.Record, t watermark.Time, epoch int64) bool {
	id := m.t.rules.Identity.OfRecord(r)
	return len(id) > 0 && slices.ContainsFunc(slices.Concat(m.ordered, m.pending), func(o *made) bool {
		source := *o.rec
		source.Headers = source.Headers[:o.own]
		return !o.late && o.topic == m.topic && o.epoch == epoch && o.time == t && o.source < r.Offset &&
			string(m.t.rules.Identity.OfRecord(&source)) == string(id)
	})
}

func (m *maker) source() emit.Source {
	r := &m.t.rules
	return emit.Source{Topic: r.Topic, Ordered: r.Ordered, Late: r.Late, Partition: r.Partition}
}

// put hands out an output, with as many headers as there is room for.
func (m *maker) put(r *kgo.Record, o made) {
	o.own, o.topic = len(m.t.rawAt(o.source).Headers), m.topic
	for m.limit > 0 && emit.WireSize(r) > m.limit && m.box.Shed(r) {
	}
	o.rec = &kgo.Record{Key: r.Key, Value: r.Value, Headers: slices.Clone(r.Headers), Timestamp: r.Timestamp}
	o.bare = o.ours(m.headers.Prefix+emit.WordSourceOffset) < 0
	m.pending = append(m.pending, &o)
	if m.t.rules.AtLeastOnce {
		m.land()
	}
}

// land makes the outputs durable.
func (m *maker) land() {
	for _, o := range m.pending {
		log := &m.ordered
		if o.late {
			log = &m.late
		}
		o.rec.Offset = int64(choose(m, 0, 0, 0, 1))
		if n := len(*log); n > 0 {
			o.rec.Offset += (*log)[n-1].rec.Offset + 1
		}
		*log = append(*log, o)
	}
	m.pending = nil
}

// drain puts out what has come due, with a commit in its midst now and then.
func (m *maker) drain() {
	var due reorder.Release
	for m.p.Next(&due) {
		o := made{source: due.Offset, epoch: int64(due.Epoch), time: due.Time}
		switch {
		case !due.Duplicate:
			m.put(m.box.Ordered(m.source(), &due), o)
		case m.t.rules.Dropped:
			m.counted++
		default:
			o.late, o.verdict = true, reorder.Duplicate
			m.put(m.box.Duplicate(m.source(), &due, m.p.Watermark(), 1234), o)
		}
		if m.one(20) {
			m.commit()
		}
	}
}

// moved puts out what a move of the watermark by something else than a record has
// freed. At least once it is committed first.
func (m *maker) moved() {
	if m.t.rules.AtLeastOnce {
		m.commit()
	}
	m.drain()
}

func (m *maker) commit() {
	m.land()
	m.dropped += m.counted
	m.counted = 0
	m.committed = m.p.Snapshot()
	m.committed.Steps, m.committed.Settled = slices.Clone(m.committed.Steps), slices.Clone(m.committed.Settled)
	m.commits = append(m.commits, m.committed)
	m.p.Advance()
}

// reset has the group begin anew at an offset.
func (m *maker) reset(origin int64) {
	m.pending = nil
	epoch, written := int64(0), false
	for _, o := range slices.Concat(m.ordered, m.late) {
		epoch, written = max(epoch, o.epoch), true
	}
	if written {
		epoch++
		m.t.untouched = false
	}
	m.committed = reorder.Fresh(origin, 0, uint32(epoch))
	m.commits = []reorder.Snapshot{m.committed}
	m.dropped = 0
	m.assign()
}

// make runs the partition.
func (m *maker) make() *triple {
	m.write(5 + m.IntN(50))
	m.reset(m.t.raw[m.IntN(4)].Offset)
	for events := 20 + m.IntN(120); events > 0; events-- {
		switch what := m.IntN(150); {
		case what < 10:
			m.commit()
		case what < 13: // crash
			if m.t.rules.AtLeastOnce {
				m.t.repeats = true
			}
			m.restart()
		case what < 15:
			if !m.steady && m.eng.Relieve() != nil {
				m.moved()
			}
		case what < 17 && !m.steady: // idle
			for range 4 {
				m.now += watermark.Instant(900 * time.Millisecond)
				m.eng.Tick(m.now)
				m.heard.Answer(m.now, m.next, m.next)
				m.p.Observe(m.heard)
			}
			m.moved()
		case what == 17:
			m.reset(m.Int64N(m.next + 1))
		case what == 18:
			m.topic++
			m.t.raw, m.next = nil, 0
			m.write(5 + m.IntN(50))
			m.reset(0)
		case what == 19:
			m.write(5)
		case what == 20:
			to := m.next // control records, or what was aborted
			if r := m.more(); r != nil {
				to = r.Offset
			}
			m.p.Skip(to, 0)
		default:
			if r := m.more(); r != nil {
				m.step(r)
			}
		}
	}
	return m.look()
}

// restart is a crash, after which some settings may be others.
func (m *maker) restart() {
	if !m.t.rules.AtLeastOnce { // there they are changed after a clean stop only
		m.settings()
	}
	m.assign()
}

// look takes the topics as they are, and the commit or one a little older.
func (m *maker) look() *triple {
	t := m.t
	t.ordered, t.late, t.dropped, t.topic = m.ordered, m.late, m.dropped, m.topic
	s := m.committed
	quiet := true
	if m.one(4) {
		s = m.commits[m.IntN(len(m.commits))]
		quiet = len(m.commits) == 1
	}
	t.scope = scopeOf(s)
	t.scope.Quiet = quiet
	t.scope.Epochs = m.committed.Epoch > 0
	t.untouched = t.untouched && quiet && !t.rules.AtLeastOnce && m.committed.Epoch == 0
	t.scope.RawEnd = m.next + int64(choose(m, 0, 2))
	if !m.one(2) {
		return t
	}
	if m.one(3) {
		t.untouched = false
		t.raw, t.scope.RawStart = cutRaw(m, t.raw)
	}
	if m.one(3) {
		t.untouched = false
		t.ordered, t.scope.OrderedStart = cutMade(m, t.ordered)
	}
	if m.one(3) {
		t.untouched = false
		t.late, t.scope.LateStart = cutMade(m, t.late)
	}
	if m.one(3) && len(t.raw) > 0 {
		t.untouched, t.compacted = false, true
		last := t.raw[len(t.raw)-1]
		t.raw = slices.DeleteFunc(slices.Clone(t.raw), func(r *kgo.Record) bool { return r != last && m.one(3) })
	}
	return t
}

func cutRaw(m *maker, log []*kgo.Record) ([]*kgo.Record, int64) {
	if len(log) == 0 {
		return log, 0
	}
	n := m.IntN(len(log))
	return log[n:], log[n].Offset
}

func cutMade(m *maker, log []*made) ([]*made, int64) {
	if len(log) == 0 {
		return log, 0
	}
	n := 1 + m.IntN(len(log))
	if n == len(log) {
		return nil, log[n-1].rec.Offset + 1
	}
	return log[n:], log[n].rec.Offset
}

// ours returns the index of the header of a name that was appended, -1 if there is none.
func (o *made) ours(name string) int {
	for i := o.own; i < len(o.rec.Headers); i++ {
		if o.rec.Headers[i].Key == name {
			return i
		}
	}
	return -1
}

func records(log []*made) []*kgo.Record {
	out := make([]*kgo.Record, len(log))
	for i, o := range log {
		out[i] = o.rec
	}
	return out
}

// check has the checker meet the triple.
func (t *triple) check() Report {
	c := NewChecker(t.rules, t.scope)
	if t.compacted {
		c.Compacted()
	}
	if err := examine(c, logs{t.raw, records(t.ordered), records(t.late)}); err != nil {
		panic(err)
	}
	return c.Finish()
}

// histories returns how many seeds to run, and the first.
func histories(modest int) (n int, first uint64) {
	n = modest
	if s := os.Getenv("TIDEMARK_TEST_HISTORIES"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("TIDEMARK_TEST_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		if os.Getenv("TIDEMARK_TEST_HISTORIES") == "" {
			n = 1
		}
	}
	return n, first
}

// TestCheckerOfTriples: no correct triple is refused, whatever was on or off and
// whatever is left of it, and every record is accounted for.
func TestCheckerOfTriples(t *testing.T) {
	n, first := histories(2000)
	failed := 0
	for seed := first; seed < first+uint64(n); seed++ {
		if why := accepts(newMaker(seed).make()); why != "" {
			t.Errorf("TIDEMARK_TEST_SEED=%d: %s", seed, why)
			if failed++; failed == 10 {
				return
			}
		}
	}
}

// accepts says what is wrong with the report on a correct triple.
func accepts(tr *triple) string {
	r := tr.check()
	late := int64(0)
	for _, n := range r.Late {
		late += n
	}
	in, out := r.Read+r.Expired+r.Replayed+r.Repeated, r.Ordered+late+r.Dropped+r.Buffered+r.Unproven
	switch {
	case !r.Holds():
		return fmt.Sprintf("a correct triple is refused: %+v", r.Faults)
	case in != out:
		return fmt.Sprintf("not conserved: %d in, %d out: %+v", in, out, r)
	case tr.untouched && (r.Dropped != tr.dropped || r.Buffered != tr.scope.Buffered || r.Expired+r.Replayed+r.Repeated+r.Unproven != 0):
		return fmt.Sprintf("%d dropped, %d buffered: %+v", tr.dropped, tr.scope.Buffered, r)
	}
	return ""
}
