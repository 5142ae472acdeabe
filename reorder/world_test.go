package reorder

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// This file is the world around a partition as the tests see it: a log, a
// consumer that calls the engine as it asks to be called, and a committer that
// makes outputs durable together with a snapshot. A crash is then no more than
// forgetting everything that is not durable.

// logged is a record of the model's log. The wall clock at which it is read is
// part of it, which makes the future guard a function of the log too.
type logged struct {
	Record
	wall   watermark.Time
	marker watermark.Time // a watermark that it carries, or None
	// doubtful: whether its time can be read is for an outside service to say, which
	// may change its mind. Until it can, the record is Invalid and Outside.
	doubtful bool
}

// forget takes their times from some records of a log.
func (s source) forget(log []logged) {
	often := oneOf(s, 2, 4, 8)
	for i := range log {
		if r := &log[i]; !r.Invalid && s.maybe(often) {
			r.Previous = true
		}
	}
}

// previous reports whether a record of the log has no time of its own.
func (d *durable) previous(offset int64) bool {
	i := d.pick(offset)
	return i < len(d.log) && d.log[i].Offset == offset && d.log[i].Previous
}

// told returns the record as it is once the service can tell.
func (r logged) told() logged {
	if r.doubtful {
		r.Invalid, r.Outside = false, false
	}
	return r
}

// output is a record put out: an ordered one (OnTime), or a late one with the
// watermark it was judged by.
type output struct {
	Position
	verdict   Verdict
	epoch     uint32
	watermark int64 // ordered: the lookahead, ms; late: W, ns
}

// durable is a log, and what a committer keeps of it.
type durable struct {
	log []logged
	end int64 // of the log

	at   Scope
	low  int64 // the offset committed, its leader epoch,
	lowE int32
	text string         // the metadata,
	was  Snapshot       // which says this,
	out  []output       // the outputs
	put  map[int64]bool // and their offsets
	last *output        // the last ordered one
	base int            // records that are not expected to come out

	apart bool          // repeats have always been told from originals
	known bool          // they have been told as asked says
	asked []Identity    // by what records were known to those who had the partition, one after another
	by    map[int64]int // which of them put an ordered record out

	refused []Position     // as from the future
	reader  *reader        // of what is not committed; nil: that is hidden
	ids     map[int64]byte // what records are known by, where that is not a matter of chance
}

// world is a partition in the hands of a process.
type world struct {
	*durable
	opts Options
	eng  *Engine
	p    *Partition

	taken       Snapshot // where the process began with the partition
	pending     []output // since the last commit
	bodies      [][]byte // theirs; empty for late ones
	gaps        []gap    // losses accepted since the last commit
	due         bool     // a release is under way
	disbelieved bool     // the marker of the last record
	shown       bool     // what is pending has been seen
	teller      int      // which of asked it is
	now         watermark.Instant
	heard       watermark.Stretch // of the end of the log,
	replies     []reply           // which is the sum of these
	trace       *strings.Builder
	name        string // before each line of the trace
	heavy       int    // how much the payloads weigh
}

// gap says that the offsets from here on are read again, for they are not the
// records they were; what came out of the old ones came before.
type gap struct {
	from   int64
	before int // how many of pending
}

// newWorld returns a world whose group has committed its origin and nothing
// else.
func newWorld(eng *Engine, log []logged) *world {
	w := &world{opts: eng.opts, eng: eng, durable: &durable{log: log, at: Scope{Group: "g", Partition: 3}}}
	if len(log) > 0 {
		w.end = log[len(log)-1].Offset + 1
	}
	w.start(Fresh(0, 0, 0))
	return w
}

// start commits where a group begins.
func (d *durable) start(s Snapshot) {
	d.low, d.lowE, d.text, d.was = s.Low, s.LowEpoch, s.Encode(d.at), s
	d.base, d.put, d.by = d.pick(s.Next), map[int64]bool{}, map[int64]int{}
}

// size is that of what a record carries; now and then nothing, now and then
// much.
func (w *world) size(offset int64) int {
	size := int(OffsetHash(offset) % 40)
	if size == 39 {
		size = 5000
	} else {
		size *= max(w.heavy, 1)
	}
	if w.opts.Identity != nil {
		size += 2
	}
	return size
}

// id is what the record at an offset is known by, by an identity; 0: nothing.
func (d *durable) id(by Identity, offset int64) byte {
	if d.previous(offset) {
		return 0
	}
	return d.written(by, offset)
}

// written is what stands in its payload for that.
func (d *durable) written(by Identity, offset int64) byte {
	if d.ids != nil {
		return d.ids[offset]
	}
	return idOf(by, offset)
}

func idOf(by Identity, offset int64) byte {
	switch by {
	case firstByte{}:
		return "\x00\x01\x01\x02"[OffsetHash(^offset)%4]
	case secondByte{}:
		return "\x00\x01\x02\x02"[OffsetHash(offset+1000)%4]
	}
	return 0
}

// firstByte takes the first byte of a payload for its identity.
type firstByte struct{}

func (firstByte) Of(body []byte) []byte { return byteOf(body[:1]) }

// secondByte takes the second.
type secondByte struct{}

func (secondByte) Of(body []byte) []byte { return byteOf(body[1:2]) }

func byteOf(id []byte) []byte {
	if id[0] == 0 {
		return nil
	}
	return id
}

// fill writes what the record at an offset carries, and intact says whether
// that still stands there.
func (w *world) fill(body []byte, offset int64) {
	for i := range body {
		body[i] = byte(offset)
	}
	if w.opts.Identity != nil {
		body[0], body[1] = w.written(firstByte{}, offset), idOf(secondByte{}, offset)
	}
}

func (w *world) intact(body []byte, offset int64) bool {
	want := make([]byte, w.size(offset))
	w.fill(want, offset)
	return bytes.Equal(body, want)
}

// failf ends a history that breaks a law; see try.
func (w *world) failf(format string, a ...any) { panic(violation(fmt.Sprintf(format, a...))) }

type violation string

func (w *world) tracef(format string, a ...any) {
	if w.trace == nil {
		return
	}
	for i := range a {
		if t, ok := a[i].(watermark.Time); ok {
			a[i] = ms(t)
		}
	}
	fmt.Fprintf(w.trace, w.name+format+"\n", a...)
}

// pick returns the index of the next record to read, at or after offset.
func (d *durable) pick(offset int64) int {
	return sort.Search(len(d.log), func(i int) bool { return d.log[i].Offset >= offset })
}

// more reports whether there is a record to read.
func (w *world) more() bool { return w.pick(w.p.Position()) < len(w.log) }

// read steps the next record of the log.
func (w *world) read() Verdict { return w.step(w.log[w.pick(w.p.Position())]) }

func (w *world) step(r logged) Verdict {
	w.key(&r)
	r.Size, w.disbelieved = w.size(r.Offset), false
	for r.Outside && !w.p.Settles(r.Offset) {
		w.tracef("no room to settle #%d", r.Offset)
		w.p.MakeRoom()
		w.drain()
	}
	was := w.p.Watermark()
	v, body := w.p.Step(r.Record, r.wall)
	st := w.p.Status()
	w.tracef("read #%d t=%s %v W=%s", r.Offset, r.Time, v, st.Watermark)
	switch v {
	case OnTime:
		w.fill(body, r.Offset)
	case Flush:
	case Settled, Remembered:
		w.failf("#%d %v, but it was never read", r.Offset, v)
	default:
		w.pending = append(w.pending, output{Position{r.Time, r.Offset}, v, st.Epoch, int64(was)})
		w.bodies = append(w.bodies, nil)
	}
	if v != Flush && r.marker != watermark.None {
		w.disbelieved = !w.p.Mark(r.marker, r.wall)
		w.tracef("  marker %s believed=%v W=%s", r.marker, !w.disbelieved, w.p.Watermark())
	}
	w.due = true
	return v
}

// key says what a record's key is, where that is left to chance.
func (w *world) key(r *logged) {
	if w.opts.Previous && r.Key == 0 {
		r.Key = keyOf(r.Offset)
	}
}

// next takes one record of the release under way.
func (w *world) next() bool {
	var r Release
	at, due := w.p.Peek()
	if w.due = w.p.Next(&r); w.due != due || due && at != r.Position {
		w.failf("Peek says %v #%d, Next %v #%d", due, at.Offset, w.due, r.Offset)
	}
	if w.due {
		out := output{r.Position, OnTime, r.Epoch, r.Watermark}
		if r.Duplicate {
			out = output{r.Position, Duplicate, r.Epoch, int64(w.p.Watermark())}
			w.tracef("  out #%d t=%s epoch=%d duplicate", r.Offset, r.Time, r.Epoch)
		} else {
			w.tracef("  out #%d t=%s epoch=%d watermark=%d", r.Offset, r.Time, r.Epoch, r.Watermark)
		}
		w.pending = append(w.pending, out)
		w.bodies = append(w.bodies, r.Body)
		w.eng.Landed(w.eng.pool.flight - 1) // which is no news
	}
	return w.due
}

func (w *world) drain() {
	for w.next() {
	}
}

// commit makes durable what came out since the last one, with a snapshot.
func (w *world) commit() Snapshot {
	s, text := w.prepare()
	w.settle(s, text)
	w.land()
	return s
}

// land says that what came out is not used any more, and begins a new flight.
func (w *world) land() {
	number := w.eng.pool.flight
	w.eng.Flight(number + 1)
	w.eng.Landed(number)
}

// prepare returns what is to be committed, and checks the laws that hold for
// that.
func (w *world) prepare() (Snapshot, string) {
	s, st := w.p.Snapshot(), w.p.Status()
	text := s.Encode(w.at)
	w.tracef("commit L=%d H=%d W=%s held=%d releasing=%v", s.Low, s.Next, s.W, s.Count, s.Releasing)
	switch got, err := Decode(text, s.Low, s.LowEpoch, w.at); {
	case err != nil:
		w.failf("own metadata refused: %v", err)
	case !same(got, s):
		w.failf("decode(encode(s)) = %+v, want %+v", got, s)
	case s.Natural > s.W || len(text) >= MaxMetadata:
		w.failf("natural %s > W %s, or %d bytes of metadata", ms(s.Natural), ms(s.W), len(text))
	case len(s.Steps) > watermark.MaxSteps:
		w.failf("%d steps", len(s.Steps))
	case largest(s, w.at) >= MaxMetadata:
		w.failf("with all else at its largest, the commit would have %d bytes", largest(s, w.at))
	case len(s.Settled) > MaxSettled:
		w.failf("%d settled spans", len(s.Settled))
	case w.known && w.needless(s) >= 0:
		w.failf("nothing was refused between steps %d and the one after it, and they are two: %v", w.needless(s), s.Steps)
	case int(s.Count) != st.Records || s.Low != st.Low || w.p.Low() != st.Low:
		w.failf("snapshot and status differ: %+v %+v", s, st)
	case s.LowEpoch != w.leaderAt(s):
		w.failf("leader epoch of L=%d is %d, want %d", s.Low, s.LowEpoch, w.leaderAt(s))
	}
	for i, o := range w.pending {
		if (o.verdict == OnTime || o.verdict == Duplicate) && !w.intact(w.bodies[i], o.Offset) {
			w.failf("#%d: the payload was overwritten before it landed", o.Offset)
		}
	}
	return s, text
}

// needless returns a step of the guard's after which nothing was refused that the
// next one lets pass, and which is no switch; -1: there is none.
func (w *world) needless(s Snapshot) int {
	for i := 1; i < len(s.Steps); i++ {
		a, b := s.Steps[i-1], s.Steps[i]
		between := func(at Position) bool { return a.Offset <= at.Offset && at.Offset < b.Offset && at.Time <= b.Limit }
		if a.Limit != watermark.Max && !slices.ContainsFunc(w.refused, between) {
			return i - 1
		}
	}
	return -1
}

// largest is how long the metadata of a snapshot may get by what else there may be in
// it, if there are many steps of the guard's or settled spans.
func largest(s Snapshot, at Scope) (most int) {
	const few = 16
	if len(s.Steps) > few {
		all := everything()
		all.Steps = nil
		for _, g := range s.Steps {
			all.Steps = append(all.Steps, watermark.Step{Offset: math.MinInt64, Limit: g.Limit})
		}
		most = max(most, len(all.Encode(at)))
	}
	if len(s.Settled) > few {
		all := everything()
		all.Low, all.Settled = s.Low, s.Settled
		most = max(most, len(all.Encode(at)))
	}
	return most
}

// settle makes it durable, and checks the laws of what is.
func (w *world) settle(s Snapshot, text string) {
	switch before := &w.was; {
	case s.Low < before.Low && w.gaps == nil:
		w.failf("L went back from %d to %d", before.Low, s.Low)
	case s.Next < before.Next && w.gaps == nil:
		w.failf("H went back from %d to %d", before.Next, s.Next)
	case s.Epoch < before.Epoch || s.Epoch == before.Epoch && s.W < before.W:
		w.failf("epoch or watermark went back: %d %s after %d %s", s.Epoch, ms(s.W), before.Epoch, ms(before.W))
	}
	gaps := w.gaps
	for i := range w.pending {
		for len(gaps) > 0 && gaps[0].before <= i {
			w.forget(gaps[0].from)
			gaps = gaps[1:]
		}
		w.enter(&w.pending[i], len(gaps) > 0)
	}
	for _, g := range gaps {
		w.forget(g.from)
	}
	if read := w.pick(s.Next) - w.base; len(w.put)+int(s.Count) != read {
		w.failf("read %d, but put out %d and hold %d", read, len(w.put), s.Count)
	}
	w.out = append(w.out, w.pending...)
	s.Steps = slices.Clone(s.Steps)
	w.low, w.lowE, w.text, w.was = s.Low, s.LowEpoch, text, s
	w.pending, w.bodies, w.gaps, w.shown = nil, nil, nil, false
	if w.reader != nil {
		w.reader.all(w)
	}
}

// forget strikes off what came out of records that the log no longer has.
func (d *durable) forget(from int64) {
	for offset := range d.put {
		if offset >= from {
			delete(d.put, offset)
		}
	}
}

// enter checks a record that becomes durable: it comes out once, in order, with
// a header that says the truth. The log may have lost it since.
func (w *world) enter(o *output, lost bool) {
	i := w.pick(o.Offset)
	switch {
	case w.put[o.Offset]:
		w.failf("#%d came out twice", o.Offset)
	case !lost && (i == len(w.log) || w.log[i].Offset != o.Offset || w.log[i].Time != o.Time && !w.log[i].Previous):
		w.failf("#%d t=%s is not in the log", o.Offset, ms(o.Time))
	case o.verdict == BehindWatermark && int64(o.Time) > o.watermark:
		w.failf("#%d is called late, but is ahead of W", o.Offset)
	}
	w.put[o.Offset] = true
	if w.apart {
		w.repeats(o)
	}
	if w.known && o.verdict == OnTime {
		w.by[o.Offset] = w.teller
		w.unknown(o)
	}
	if o.verdict != OnTime {
		return
	}
	switch last := w.last; {
	case last == nil:
	case o.epoch < last.epoch:
		w.failf("epoch of #%d went back", o.Offset)
	case o.epoch > last.epoch:
	case !last.Before(o.Position):
		w.failf("#%d after #%d is out of order", o.Offset, last.Offset)
	case o.Time.Millis() <= last.watermark:
		w.failf("watermark=%d was a lie: #%d t=%s follows", last.watermark, o.Offset, ms(o.Time))
	case o.watermark < last.watermark:
		w.failf("watermark of #%d went back", o.Offset)
	}
	w.last = o
}

// repeats checks that a record came out in order if, and only if, none of its
// event time and identity had before.
func (w *world) repeats(o *output) {
	before := slices.ContainsFunc(append(slices.Clip(w.out), w.pending...), func(b output) bool {
		return b.verdict == OnTime && b.epoch == o.epoch && b.Time == o.Time && b.Offset < o.Offset && w.id(w.opts.Identity, b.Offset) == w.id(w.opts.Identity, o.Offset)
	})
	if before = before && w.id(w.opts.Identity, o.Offset) != 0; before && o.verdict == OnTime || !before && o.verdict == Duplicate {
		w.failf("#%d is %v, but repeats another: %v", o.Offset, o.verdict, before)
	}
}

// unknown checks that a record that comes out in order repeats none that was told
// from its repeats by the same identity when it came out, however often the identity
// has been switched off and on again since.
func (w *world) unknown(o *output) {
	id := w.asked[w.teller]
	for _, b := range append(slices.Clip(w.out), w.pending...) {
		by := w.by[b.Offset]
		if id == nil || b.verdict != OnTime || b.epoch != o.epoch || b.Time != o.Time || b.Offset >= o.Offset || w.asked[by] != id {
			continue
		}
		other := slices.ContainsFunc(w.asked[by:w.teller], func(i Identity) bool { return i != nil && i != id })
		if known := w.id(id, o.Offset); known != 0 && w.id(id, b.Offset) == known && !other {
			w.failf("#%d comes out in order, but repeats #%d", o.Offset, b.Offset)
		}
	}
}

// leaderAt is the leader epoch that has to be committed with a snapshot.
func (w *world) leaderAt(s Snapshot) int32 {
	if i := w.pick(s.Low); s.Low < s.Next && i < len(w.log) && w.log[i].Offset == s.Low {
		return w.log[i].LeaderEpoch
	}
	return s.NextEpoch
}

func (d *durable) committed() Snapshot {
	s, err := Decode(d.text, d.low, d.lowE, d.at)
	if err != nil {
		panic(violation("committed metadata refused: " + err.Error()))
	}
	return s
}

// assign starts from what is durable, and reads [L, H) again. What was lost
// there is returned.
func (w *world) assign(accept bool) *Loss {
	w.begin()
	w.again()
	return w.endReplay(accept)
}

// begin forgets what is not durable.
func (w *world) begin() {
	if w.p != nil {
		w.eng.Revoke(w.p)
	}
	w.taken = w.committed()
	w.p = w.eng.Assign(w.taken, w.now)
	w.pending, w.bodies, w.gaps, w.due, w.shown = nil, nil, nil, false, false
	w.tracef("assign L=%d", w.taken.Low)
}

// again reads [L, H) once more. By now the service can tell what it could not.
func (w *world) again() {
	end, _ := w.p.Replaying()
	for i := w.pick(w.p.Position()); i < len(w.log) && w.log[i].Offset < end; i++ {
		w.againOne(w.log[i].told())
	}
}

func (w *world) againOne(r logged) Verdict {
	w.key(&r)
	r.Size = w.size(r.Offset)
	if r.Offset%2 == 0 {
		w.p.Skip(r.Offset, r.LeaderEpoch)
	}
	if asked(r) {
		w.told(event{sent: w.now, answer: quiet, looked: true})
	}
	if w.p.Next(new(Release)) || w.p.Due() || w.p.Low() != w.taken.Low || r.Offset%2 == 0 && w.p.Position() != r.Offset {
		w.failf("a release, or L=%d, or position %d while replaying #%d", w.p.Low(), w.p.Position(), r.Offset)
	}
	v, body := w.p.Step(r.Record, r.wall)
	w.tracef("again #%d t=%s %v", r.Offset, r.Time, v)
	switch v {
	case OnTime, Remembered:
		w.fill(body, r.Offset)
	case Settled:
	default:
		w.failf("#%d: %v while replaying", r.Offset, v)
	}
	if r.marker != watermark.None && !w.p.Mark(r.marker, r.wall) {
		w.failf("#%d: a marker judged while replaying", r.Offset)
	}
	return v
}

// asked says that the broker answers before a record is read again.
func asked(r logged) bool { return r.Offset%3 == 0 }

func (w *world) endReplay(accept bool) *Loss {
	w.due = true
	if _, replaying := w.p.Replaying(); !replaying {
		return nil
	}
	if got := w.p.Snapshot(); !same(got, w.taken) {
		w.failf("snapshot while replaying = %+v, want what was committed: %+v", got, w.taken)
	}
	loss := w.p.EndReplay(w.end, accept)
	if loss != nil {
		w.tracef("%v", loss)
		if accept {
			w.accepted()
		}
	}
	return loss
}

// accepted takes note that a loss has been accepted: L and H may go back.
func (w *world) accepted() {
	w.gaps = append(w.gaps, gap{w.p.Position(), len(w.pending)})
}

// finish releases what is still held, and commits.
func (w *world) finish() {
	w.drain()
	for w.p.Status().Records > 0 {
		w.p.force()
		w.drain()
	}
	w.commit()
	w.p.Advance()
}

// same compares snapshots; no steps is no steps, and no spans no spans.
func same(a, b Snapshot) bool {
	if len(a.Settled) == 0 && len(b.Settled) == 0 {
		a.Settled, b.Settled = nil, nil
	}
	if len(a.Steps) == 0 && len(b.Steps) == 0 {
		a.Steps, b.Steps = nil, nil
	}
	if len(a.Disorder) == 0 && len(b.Disorder) == 0 {
		a.Disorder, b.Disorder = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// all checks that every record of the log has come out.
func (w *world) all() {
	if len(w.put)+w.base != len(w.log) {
		w.failf("%d records in the log, %d came out", len(w.log)-w.base, len(w.put))
	}
}

// ms writes a time in milliseconds, with what is left of it.
func ms(t watermark.Time) string {
	if t == watermark.None {
		return "-"
	}
	s := strconv.FormatInt(int64(t), 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for len(s) < 7 {
		s = "0" + s
	}
	point := len(s) - 6
	return sign + strings.TrimSuffix(strings.TrimRight(s[:point]+"."+s[point:], "0"), ".")
}

func list(out []output) string {
	var b strings.Builder
	for _, o := range out {
		if o.verdict == OnTime {
			fmt.Fprintf(&b, "  #%d t=%s epoch=%d watermark=%d\n", o.Offset, ms(o.Time), o.epoch, o.watermark)
		} else {
			fmt.Fprintf(&b, "  #%d t=%s epoch=%d %v W=%s\n", o.Offset, ms(o.Time), o.epoch, o.verdict, ms(watermark.Time(o.watermark)))
		}
	}
	return b.String()
}

// source makes the choices of a random history: a number from 0 to n-1. They
// come from a seed, from a fuzzer's bytes, or from rapid.
type source func(n int) int

func seeded(seed uint64) source { return rand.New(rand.NewPCG(seed, 0)).IntN }

func fromBytes(b []byte) source {
	return func(n int) int {
		if len(b) == 0 {
			return 0
		}
		v := int(b[0])
		b = b[1:]
		return v % n
	}
}

func oneOf[T any](s source, of ...T) T { return of[s(len(of))] }

// maybe is true once in n times.
func (s source) maybe(n int) bool { return s(n) == n-1 }

func (s source) options() Options {
	o := Options{
		Bound:         oneOf(s, 5*time.Millisecond, 0, 1, 5*time.Second),
		IdleTimeout:   oneOf(s, 0, 1500*time.Millisecond),
		MaxFuture:     oneOf(s, 0, 40*time.Millisecond, 5*time.Minute),
		ReanchorAfter: oneOf(s, 0, 1, 3),
		Identity:      oneOf[Identity](s, nil, firstByte{}),
	}
	s.strategy(&o)
	return o
}

// strategy chooses one, with numbers of its own; every other time the usual.
func (s source) strategy(o *Options) {
	switch o.Strategy = oneOf(s, watermark.Bounded, watermark.Bounded, watermark.Bounded, watermark.WindowMin, watermark.Punctuated, watermark.Adaptive); o.Strategy {
	case watermark.WindowMin:
		o.Window = o.Bound
		o.Lateness = oneOf(s, 1, 0, 2*time.Millisecond, time.Second)
	case watermark.Adaptive:
		o.Floor = oneOf(s, 0, o.Bound/4)
		o.TargetLate = oneOf(s, 500_000, 300_000, 100_000)
	}
}

// marker is what a record may say of the watermark: often what is true of the
// log up to it, and at times what is not.
func (s source) marker(o Options, t, wall watermark.Time) watermark.Time {
	near := time.Duration(s(3) - 1)
	switch s(6) {
	case 0:
		return t.Sub(o.Bound).Add(near)
	case 1:
		return t.Add(near)
	case 2:
		return t.Sub(o.Bound * time.Duration(s(5)) / 4)
	case 3:
		if o.MaxFuture > 0 && s.maybe(2) {
			return wall.Add(o.MaxFuture*time.Duration(s(8))/4 + near)
		}
	}
	return watermark.None
}

// log makes up to n records that lie where it is narrow: at the bound and one
// nanosecond beside it, at the guard's limit, at equal times, at the ends of
// the range.
func (s source) log(o Options, n int) []logged {
	t := oneOf[watermark.Time](s, 1_763_700_000_000e6, 0, -7e6, watermark.Max.Sub(20*time.Millisecond), watermark.None.Add(1+20*time.Millisecond))
	wall := t
	unit := oneOf(s, time.Millisecond, 1, 300*time.Microsecond, o.Bound/4+1)
	var offset int64
	var leader int32
	var log []logged
	for range s(n) + 1 {
		t = t.Add(unit * time.Duration(s(4)))
		if s.maybe(16) {
			t = t.Add(o.Bound)
		}
		wall = max(wall, t.Add(o.MaxFuture*time.Duration(s(5)-3)/4))
		wall = min(wall, watermark.Max.Sub(2*o.MaxFuture)) // nobody will run this in 2262
		r := logged{Record: Record{Offset: offset, LeaderEpoch: leader, Time: t}, wall: wall}
		switch near := time.Duration(s(3) - 1); s(10) {
		case 0:
			r.Time = t.Sub(o.Bound*time.Duration(s(9))/4 + near)
		case 1:
			r.Time = t.Sub(unit*time.Duration(s(4)) + near)
		case 2:
			if len(log) > 0 {
				r.Time = log[s(len(log))].Time
			}
		case 3:
			r.Invalid = s.maybe(2)
			r.Outside = r.Invalid && s.maybe(2)
			r.doubtful = r.Outside
		case 4:
			if o.MaxFuture > 0 {
				r.Time = wall.Add(o.MaxFuture*time.Duration(s(8))/4 + near)
			}
		case 5:
			if o.ReanchorAfter > 0 && s.maybe(2) {
				t = t.Sub(o.Bound + 8*unit)
			}
		}
		if r.Time == watermark.None {
			r.Time++ // no event time equals it
		}
		r.marker = watermark.None
		if o.Strategy == watermark.Punctuated {
			r.marker = s.marker(o, t, wall)
		}
		log = append(log, r)
		offset++
		if s.maybe(6) {
			offset += int64(s(3))
		}
		if s.maybe(10) {
			leader++
		}
	}
	return log
}

// try runs a history and returns how it breaks a law.
func try(history func()) (broken error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case violation:
			broken = fmt.Errorf("%s", string(r))
		default:
			broken = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	history()
	return nil
}

// A rapid check is cheap here: by default there are more of them, and one that
// fails is printed rather than kept in a file. The tests make garbage faster
// than anything else.
func init() {
	for name, value := range map[string]string{"rapid.checks": "1000", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	debug.SetGCPercent(400)
}

// histories is how many random histories a test tries; TIDEMARK_TEST_HISTORIES
// asks for another number, TIDEMARK_TEST_SEED for one of them alone, and both for so
// many from that one on.
func histories(usual int) (from, to uint64) {
	n, err := strconv.ParseUint(os.Getenv("TIDEMARK_TEST_HISTORIES"), 10, 64)
	more := err == nil
	if seed, err := strconv.ParseUint(os.Getenv("TIDEMARK_TEST_SEED"), 10, 64); err == nil {
		return seed, seed + max(n, 1)
	}
	if more {
		return 0, n
	}
	if testing.Short() {
		usual /= 10
	}
	return 0, uint64(usual)
}

// failuresVar is how many failing histories are enough.
const failuresVar = "TIDEMARK_TEST_FAILURES"

// hunt tries histories and reports the shortest of the first that fail, with
// its trace and the seed that brings it back.
func hunt(t *testing.T, usual int, history func(s source, trace *strings.Builder)) {
	t.Helper()
	from, to := histories(usual)
	var worst, first string
	failed, enough := 0, 20
	if n, err := strconv.Atoi(os.Getenv(failuresVar)); err == nil {
		enough = n
	}
	for seed := from; seed < to && failed < enough; seed++ {
		if try(func() { history(seeded(seed), nil) }) == nil {
			continue
		}
		if failed++; failed == 1 {
			first = fmt.Sprintf("found after %d histories", seed-from+1)
		}
		var trace strings.Builder
		err := try(func() { history(seeded(seed), &trace) })
		report := fmt.Sprintf("TIDEMARK_TEST_SEED=%d: %v\n%s", seed, err, trace.String())
		if worst == "" || len(report) < len(worst) {
			worst = report
		}
	}
	if failed > 0 {
		t.Fatalf("%s; the shortest of %d:\n%s", first, failed, worst)
	}
}
