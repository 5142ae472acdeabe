package reorder

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
	"pgregory.net/rapid"
)

// twin is a partition written down from the definitions alone. It keeps every
// record and every move of the watermark, has no structure that could be
// wrong, and works everything out again whenever it is asked.
//
// What was said once stays said: slices are only appended to, so that a twin
// can be put by, and gone back to, as a value; see copied.
type twin struct {
	o      Options
	epoch  uint32
	seen   []logged // on time in this epoch
	held   []logged
	moves  []move // of the watermark in this epoch
	run    int    // late records in a row
	limits []watermark.Time
	full   bool    // the guard has no room for another limit
	waits  bool    // it has been switched on, and has no room to begin
	word   []int64 // offsets that were invalid on an outside service's word

	lenders   map[int64]int64       // by the offset of a record without a time: that of whom it has its time from, or its own
	disorders map[time.Duration]int // by the end of their class
	before    []output              // of a group that was cut: what came out of it before, and is known
	from      int                   // in out: what came out since
	aside     []output              // what a watermark that came out then says is not in order

	life    watermark.Instant // the last sign of life
	since   watermark.Instant // from when on idleness has been proven,
	drained time.Duration     // and what the clock has moved for it
	looked  watermark.Instant // when somebody looked at the end last,
	reached int64             // and what had been read by then

	out []output
}

// move is where something put the watermark, and where it would have put it
// had memory never run short.
type move struct{ w, natural watermark.Time }

// event is one thing that happens to a partition.
type event struct {
	now      watermark.Instant
	record   *logged // read
	answer   answer
	sent     watermark.Instant // when the broker was asked
	looked   bool              // at all answers so far,
	replies  []reply           // which are these,
	position int64             // with so much read by then; -1 while it is read again
	force    bool              // memory has run short
}

func (t *twin) w() watermark.Time {
	w := watermark.None
	for _, m := range t.moves {
		w = max(w, m.w)
	}
	return w
}

func (t *twin) natural() watermark.Time {
	w := watermark.None
	for _, m := range t.moves {
		w = max(w, m.natural)
	}
	return w
}

func newest(of []logged) watermark.Time {
	m := watermark.None
	for _, r := range of {
		m = max(m, r.Time)
	}
	return m
}

func (t *twin) happen(e event) {
	switch {
	case e.record != nil:
		t.read(*e.record, e.now)
		t.mark(*e.record)
	case e.looked:
		t.observe(e.now, e.replies, e.position)
	case e.force && len(t.held) > 0:
		// A sixteenth of the event time held, or the oldest at least.
		oldest := watermark.Max
		for _, r := range t.held {
			oldest = min(oldest, r.Time)
		}
		span := uint64(t.newest()) - uint64(oldest)
		t.moves = append(t.moves, move{oldest + watermark.Time(span/16), watermark.None})
	}
	t.release()
}

func (t *twin) read(r logged, now watermark.Instant) {
	late := func(v Verdict) {
		t.out = append(t.out, output{Position{r.Time, r.Offset}, v, t.epoch, int64(t.w())})
	}
	switch {
	case r.Previous:
		if !t.borrow(r) {
			late(InvalidTime)
		}
		return
	case r.Invalid:
		late(InvalidTime)
		if r.Outside {
			t.word = append(t.word, r.Offset)
		}
		return
	case t.future(r):
		late(Future)
		return
	case r.Time <= t.w() && r.Time > t.natural():
		late(Overflow)
		t.learn(r)
		t.followLearned()
		return
	case r.Time <= t.w():
		t.run++
		if t.o.ReanchorAfter == 0 || t.run < t.o.ReanchorAfter {
			late(BehindWatermark)
			t.learn(r)
			t.followLearned()
			return
		}
		t.flush()
		t.epoch++
		t.seen, t.moves = nil, nil
	}
	t.run = 0
	if r.Time > newest(t.seen) {
		t.stir(now)
	}
	t.learn(r)
	t.seen, t.held = append(t.seen, r), append(t.held, r)
	if w := t.follow(); w != watermark.None {
		t.moves = append(t.moves, move{w, w})
	}
}

// followLearned moves the watermark after a late record, which may have lowered the bound.
func (t *twin) followLearned() {
	if t.o.Strategy == watermark.Adaptive {
		w := t.follow()
		t.moves = append(t.moves, move{w, w})
	}
}

// borrow holds a record without a time with that of one of its key, or with the first
// that is not late, and reports whether there is any.
func (t *twin) borrow(r logged) bool {
	r.Time = t.w().Next()
	lender := r.Offset
	for _, h := range t.held {
		if keyOf(h.Offset) == keyOf(r.Offset) && (lender == r.Offset || h.Time > r.Time || h.Time == r.Time && h.Offset < lender) {
			r.Time, lender = h.Time, h.Offset
		}
	}
	if lender == r.Offset && (t.w() == watermark.None || t.w() == watermark.Max) {
		return false
	}
	t.held, t.lenders = append(t.held, r), maps.Clone(t.lenders)
	if t.lenders == nil {
		t.lenders = map[int64]int64{}
	}
	t.lenders[r.Offset] = lender
	return true
}

// previous reports whether a record that came out, or is held, had no time.
func (t *twin) previous(offset int64) bool {
	_, is := t.lenders[offset]
	return is
}

// atEdge reports whether it had none from its key either.
func (t *twin) atEdge(offset int64) bool {
	lender, is := t.lenders[offset]
	return is && lender == offset
}

// known is what a record is known by; one without a time by nothing.
func (t *twin) known(by Identity, offset int64) byte {
	if t.previous(offset) {
		return 0
	}
	return idOf(by, offset)
}

// keyOf is the hash of a record's key.
func keyOf(offset int64) uint64 { return uint64(OffsetHash(offset*31+7)%3) << 8 }

// newest is the largest event time seen or held.
func (t *twin) newest() watermark.Time { return max(newest(t.seen), newest(t.held)) }

// follow is where the strategy wants the watermark, if it says.
func (t *twin) follow() watermark.Time {
	top := newest(t.seen)
	switch t.o.Strategy {
	case watermark.Adaptive:
		return top.Sub(t.learned()).Sub(1)
	case watermark.Punctuated:
		return watermark.None
	case watermark.WindowMin:
		oldest, some := watermark.Max, false
		for _, r := range t.held {
			if r.Time >= top.Sub(t.o.Window) && !t.previous(r.Offset) {
				oldest, some = min(oldest, r.Time), true
			}
		}
		if !some { // all were released, by the clock or for want of memory, or lost
			return watermark.None
		}
		return oldest.Sub(t.o.Lateness).Sub(1)
	}
	return top.Sub(t.o.Bound).Sub(1)
}

// mark lets the marker of a record move the watermark, after its verdict.
func (t *twin) mark(r logged) {
	if t.o.Strategy != watermark.Punctuated || r.marker == watermark.None {
		return
	}
	if t.future(logged{Record: Record{Time: r.marker}, wall: r.wall}) {
		return
	}
	t.moves = append(t.moves, move{r.marker, r.marker})
}

// learn counts how far behind the newest a record came.
func (t *twin) learn(r logged) {
	if t.o.Strategy != watermark.Adaptive {
		return
	}
	d := time.Duration(0)
	if top := newest(t.seen); top != watermark.None && r.Time < top {
		d = top.Since(r.Time)
	}
	class := time.Duration(0)
	for _, class = range disorderClasses {
		if d <= class {
			break
		}
	}
	t.disorders = maps.Clone(t.disorders)
	if t.disorders == nil {
		t.disorders = map[time.Duration]int{}
	}
	t.disorders[class]++
	t.fade()
}

// fade halves, for any disorder, how many came further behind, when there are
// sixteen times as many records as one of which may be late.
func (t *twin) fade() {
	for t.beyond(-1)*t.o.TargetLate >= 16_000_000 {
		half := map[time.Duration]int{}
		for i, class := range disorderClasses {
			least := time.Duration(-1)
			if i > 0 {
				least = disorderClasses[i-1]
			}
			half[class] = t.beyond(least)/2 - t.beyond(class)/2
		}
		t.disorders = half
	}
}

// beyond is how many records came further behind than d, as they weigh.
func (t *twin) beyond(d time.Duration) (n int) {
	for class, of := range t.disorders {
		if class > d {
			n += of
		}
	}
	return n
}

// histogram is what a commit has to say of it.
func (t *twin) histogram() (b []byte) {
	empty := uint64(0)
	for _, class := range disorderClasses {
		n := uint64(t.disorders[class])
		if n == 0 {
			empty++
			continue
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, empty), n)
		empty = 0
	}
	return b
}

// learned is the bound that would have left no more late than may be.
func (t *twin) learned() time.Duration {
	all := t.beyond(-1)
	if all*t.o.TargetLate < 1_000_000 {
		return t.o.Bound
	}
	for _, class := range disorderClasses {
		if t.beyond(class)*1_000_000 <= all*t.o.TargetLate {
			return min(max(class, t.o.Floor), t.o.Bound)
		}
	}
	panic("unreachable: nothing is beyond the last class")
}

// disorderClasses are the ends of the classes of disorder.
var disorderClasses = func() (ends []time.Duration) {
	for ms := time.Duration(0); ms <= 16; ms++ {
		ends = append(ends, ms*time.Millisecond)
	}
	for octave := 16 * time.Millisecond; octave < watermark.MostBound; octave *= 2 {
		for eighth := time.Duration(1); eighth <= 8; eighth++ {
			ends = append(ends, octave+eighth*octave/8)
		}
	}
	return ends
}()

// flush puts out all that is held.
func (t *twin) flush() {
	top := t.newest()
	t.moves = append(t.moves, move{top, top})
	t.release()
}

// copied returns the twin as it stands.
func (t *twin) copied() twin {
	c := *t
	c.seen, c.held, c.moves = slices.Clip(t.seen), slices.Clip(t.held), slices.Clip(t.moves)
	c.limits, c.out = slices.Clip(t.limits), slices.Clip(t.out)
	c.before, c.aside, c.word = slices.Clip(t.before), slices.Clip(t.aside), slices.Clip(t.word)
	return c
}

// restart goes on in another process, perhaps under other laws: what has been
// decided stays decided. The first n outputs are durable, and the log is read
// again from low on.
func (t *twin) restart(o Options, now watermark.Instant, n int, low int64) {
	if o.Strategy != watermark.Adaptive {
		t.disorders = nil // it is not carried on
	}
	t.o, t.life, t.since, t.looked, t.reached = o, now, never, 0, 0
	t.fade()
	t.before, t.from = slices.Clip(t.out[:n]), n // what is known, it is from the log
	t.lose(n, t.repeating(n), func(offset int64) bool { return offset < low })
	if t.o.Identity == nil && len(t.aside) == 0 && !slices.ContainsFunc(t.before, func(o output) bool { return o.Offset == low }) {
		t.before = nil // nobody has asked
	}
}

// group is what of the first n outputs may be repeated by what is due next:
// those of its event time that are known by something. Where nobody asks, it is
// what was known to those who did.
func (t *twin) group(n int) (of []output) {
	if n == len(t.out) {
		return nil
	}
	all := t.before
	if t.o.Identity != nil {
		all = append(slices.Clip(t.before), t.out[t.from:n]...)
	}
	among := func(o output) bool {
		return (o.verdict == OnTime || o.verdict == Duplicate) && o.epoch == t.epoch && o.Time == t.out[n].Time
	}
	for _, o := range all {
		if among(o) && (t.o.Identity == nil || t.known(t.o.Identity, o.Offset) != 0) {
			of = append(of, o)
		}
	}
	for _, o := range t.out[:n] { // and those that others have their time from
		if among(o) && slices.ContainsFunc(slices.Collect(maps.Keys(t.lenders)), func(offset int64) bool { return offset != o.Offset && t.lenders[offset] == o.Offset }) {
			of = append(of, o)
		}
	}
	return of
}

// repeating is what comes out as duplicates behind the first n outputs, up to
// the next in order.
func (t *twin) repeating(n int) []output {
	end := n
	for end < len(t.out) && t.out[end].verdict == Duplicate {
		end++
	}
	return slices.Clone(t.out[n:end])
}

// repeats reports whether a record has the event time and the identity of one
// of those before it.
func (t *twin) repeats(r logged, before []logged) bool {
	if slices.ContainsFunc(t.aside, func(o output) bool { return o.Position == Position{r.Time, r.Offset} && o.epoch == t.epoch }) {
		return true
	}
	by := t.o.Identity
	id := t.known(by, r.Offset)
	if by == nil || id == 0 {
		return false
	}
	return slices.ContainsFunc(before, func(b logged) bool { return b.Time == r.Time && t.known(by, b.Offset) == id }) ||
		slices.ContainsFunc(t.before, func(b output) bool { return b.epoch == t.epoch && b.Time == r.Time && t.known(by, b.Offset) == id })
}

// owed is what is held, or due and not among the first n outputs.
func (t *twin) owed(n int) (all []Position) {
	for _, o := range t.out[n:] {
		all = append(all, o.Position)
	}
	for _, r := range t.held {
		all = append(all, Position{r.Time, r.Offset})
	}
	return all
}

// lose takes back the release that has come as far as the first n outputs, and
// goes on without the records that are gone. What has been set aside stays so.
func (t *twin) lose(n int, aside []output, gone func(offset int64) bool) {
	all := t.owed(n)
	t.before = slices.DeleteFunc(t.group(n), func(o output) bool { return gone(o.Offset) })
	t.aside = aside
	t.held, t.out, t.from = nil, t.out[:n:n], n
	t.word = slices.DeleteFunc(slices.Clone(t.word), gone)
	for _, at := range all {
		if !gone(at.Offset) {
			t.held = append(t.held, logged{Record: Record{Offset: at.Offset, Time: at.Time}})
		}
	}
	t.release()
}

// future is the guard: a record beyond the limit raises it, unless it is
// further from the wall clock than the skew allows. Switched off, it raises it
// beyond everything; switched on, it begins below everything.
func (t *twin) future(r logged) bool {
	skew := t.o.MaxFuture
	limit := watermark.Max
	if skew > 0 {
		if len(t.limits) == 0 || slices.Contains(t.limits, watermark.Max) {
			if t.waits {
				return false
			}
			t.limits = []watermark.Time{watermark.None}
		}
		limit = r.wall.Add(skew + skew/4)
		if up, ok := watermark.FromMillis(limit.Millis() + 1); ok {
			limit = up
		}
	}
	switch {
	case skew == 0 && len(t.limits) == 0, len(t.limits) > 0 && r.Time <= slices.Max(t.limits):
		return false
	case skew > 0 && r.Time > r.wall.Add(skew), t.full:
		return true
	}
	t.limits = append(t.limits, limit)
	return false
}

// answer is what a broker may tell of the end of the log.
type answer int

const (
	noAnswer answer = iota
	quiet           // all has been read
	unread          // there is more
	stale           // less than has been read: a broker that is behind
	open            // there is a transaction open
	failed          // nothing
)

func (s source) answer() answer {
	if !s.maybe(8) {
		return quiet
	}
	return oneOf(s, unread, unread, stale, open, failed)
}

// reply is what a broker told of the end of the log: end is -1 if it did not, or if a
// transaction was open.
type reply struct {
	sent watermark.Instant
	end  int64
}

// run returns since when all questions have been answered, one soon after the other
// and with ends that do not go back.
func run(replies []reply) watermark.Instant {
	n := len(replies) - 1
	for ; n > 0; n-- {
		before, after := replies[n-1], replies[n]
		if before.end < 0 || before.end > after.end || before.sent > after.sent || after.sent.Sub(before.sent) > 2*time.Second {
			break
		}
	}
	return replies[n].sent
}

// stir says that there was a sign of life.
func (t *twin) stir(now watermark.Instant) { t.life, t.since = max(t.life, now), never }

const never = watermark.Instant(math.MinInt64)

// observe moves the watermark by what all answers until now prove beyond the timeout,
// and did not when somebody looked before. position is what has been read by now, -1
// while it is read again.
func (t *twin) observe(now watermark.Instant, replies []reply, position int64) {
	last := replies[len(replies)-1]
	behind := last.sent > t.looked && last.end < t.reached
	if position >= 0 {
		t.looked, t.reached = now, position
	}
	if last.sent < t.life {
		return
	}
	if t.o.IdleTimeout == 0 || last.end < 0 || last.end > position || behind {
		t.stir(last.sent)
		return
	}
	if since := max(t.life, run(replies)); since != t.since {
		t.since, t.drained = since, 0
	}
	beyond := last.sent.Sub(t.since) - t.o.IdleTimeout
	d := beyond - t.drained
	if d <= 0 {
		return
	}
	t.drained = beyond
	if len(t.held) > 0 {
		if t.w() == watermark.None {
			oldest := watermark.Max
			for _, r := range t.held {
				oldest = min(oldest, r.Time)
			}
			t.moves = append(t.moves, move{oldest - 1, oldest - 1})
		}
		top := t.newest()
		t.moves = append(t.moves, move{min(t.w().Add(d), top), min(t.natural().Add(d), top)})
	}
}

// release puts out what the watermark has passed, each record with what is
// known of those that follow.
func (t *twin) release() {
	w := t.w()
	var due, rest []logged
	for _, r := range t.held {
		if r.Time <= w {
			due = append(due, r)
		} else {
			rest = append(rest, r)
		}
	}
	slices.SortFunc(due, func(a, b logged) int {
		if a.Time != b.Time {
			return compare(a.Time, b.Time)
		}
		return compare(a.Offset, b.Offset)
	})
	for i, r := range due {
		if t.repeats(r, due[:i]) {
			t.out = append(t.out, output{Position{r.Time, r.Offset}, Duplicate, t.epoch, int64(w)})
			continue
		}
		follows := w.Next()
		for j := len(due) - 1; j > i; j-- {
			if !t.repeats(due[j], due[:j]) {
				follows = due[j].Time
			}
		}
		t.out = append(t.out, output{Position{r.Time, r.Offset}, OnTime, t.epoch, follows.Millis() - 1})
	}
	t.held = rest
}

func compare[T ~int64](a, b T) int {
	if a < b {
		return -1
	}
	return 1
}

// expected is what comes out of a log that is read without incident.
func expected(o Options, log []logged, epoch uint32) []output {
	t := twin{o: o, epoch: epoch}
	for i := range log {
		t.happen(event{record: &log[i]})
	}
	return t.out
}

// events mixes the records of a log with the answers of a broker and with
// want of memory.
func (s source) events(o Options, log []logged) []event {
	var all []event
	now := watermark.Instant(0)
	for i := 0; i < len(log); {
		now += watermark.Instant(oneOf(s, 0, 1, 100*time.Millisecond, time.Second, 2*time.Second, 2*time.Second+1))
		switch {
		case o.IdleTimeout > 0 && s.maybe(2):
			sent := now
			if s.maybe(8) {
				sent -= watermark.Instant(time.Second) // answered late
			}
			all = append(all, event{now: now, sent: sent, answer: s.answer(), looked: !s.maybe(3)})
		case s.maybe(16):
			all = append(all, event{now: now, force: true})
		default:
			all = append(all, event{now: now, record: &log[i]})
			i++
		}
	}
	return all
}

// happen lets the engine have an event; it is called between releases.
func (w *world) happen(e event) {
	w.begins(e)
	if e.record != nil && w.read() == Flush {
		w.drain()
		if w.read() == Flush {
			w.failf("#%d flushes twice", e.record.Offset)
		}
	}
	w.drain()
}

// begins lets the engine have what does not come from the log.
func (w *world) begins(e event) {
	w.eng.Tick(e.now)
	switch {
	case e.answer != noAnswer:
		if w.told(e); e.looked {
			w.tracef("answer to %v quiet=%v W=%s", time.Duration(e.sent), e.answer == quiet, w.p.Status().Watermark)
		} else {
			w.tracef("answer to %v, end %d, waits", time.Duration(e.sent), w.replies[len(w.replies)-1].end)
		}
	case e.force:
		w.eng.Relieve()
		w.tracef("relieve W=%s", w.p.Status().Watermark)
	}
	w.due = true
}

// told lets brokers answer, and the engine have all answers so far if somebody looks.
func (w *world) told(e event) {
	r := reply{e.sent, w.p.NextOffset()}
	switch e.answer {
	case unread, stale, quiet:
		switch e.answer {
		case unread:
			r.end++
		case stale:
			r.end = max(r.end-1, 0)
		}
		w.heard.Answer(e.sent, r.end, r.end)
	case open:
		w.heard.Answer(e.sent, r.end+1, r.end)
		r.end = -1
	default:
		w.heard.Break(e.sent)
		r.end = -1
	}
	w.replies = append(w.replies, r)
	if e.looked {
		w.p.Observe(w.heard)
	}
}

// compareTwin runs one history through both.
func compareTwin(s source, trace *strings.Builder) { compareTwinOf(s, trace, false) }

func compareTwinOfPrevious(s source, trace *strings.Builder) { compareTwinOf(s, trace, true) }

func compareTwinOf(s source, trace *strings.Builder, previous bool) {
	o := s.options()
	log := s.log(o, 30)
	if previous {
		o.Previous = true
		s.forget(log)
	}
	w := newWorld(NewEngine(o, 0), log)
	w.trace = trace
	w.tracef("%+v", o)
	w.apart = o.Identity != nil
	w.assign(false)
	twin := twin{o: o}
	for _, e := range s.events(o, log) {
		if e.record != nil && s.maybe(3) {
			w.p.Skip(e.record.Offset, e.record.LeaderEpoch) // says nothing new
		}
		w.happen(e)
		e.replies, e.position = w.replies, w.p.NextOffset()
		twin.happen(e)
		if !reflect.DeepEqual(w.pending, twin.out) {
			w.failf("put out:\n%sby definition:\n%s", list(w.pending), list(twin.out))
		}
		if got := w.p.Status(); got.Watermark != twin.w() || got.Records != len(twin.held) || got.Epoch != twin.epoch {
			w.failf("W=%s held=%d epoch=%d, by definition W=%s held=%d epoch=%d",
				ms(got.Watermark), got.Records, got.Epoch, ms(twin.w()), len(twin.held), twin.epoch)
		}
	}
	w.finish()
	w.all()
}

// TestTwin lets rapid make a failing history small.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var trace strings.Builder
		s := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		if err := try(func() { compareTwin(s, &trace) }); err != nil {
			t.Fatalf("%v\n%s", err, trace.String())
		}
	})
}

// TestTwinHistories has no such manners, but tries more.
func TestTwinHistories(t *testing.T) { hunt(t, 8000, compareTwin) }

// TestTwinOfPrevious: the same where some records have no time of their own.
func TestTwinOfPrevious(t *testing.T) { hunt(t, 4000, compareTwinOfPrevious) }

// FuzzPartition makes a history of any bytes: what the engine puts out must be
// what the twin does, in the simulation too.
func FuzzPartition(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over the lazy dog"))
	f.Add(bytes.Repeat([]byte{3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 89, 79, 32, 38, 46}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, history := range []func(source, *strings.Builder){
			compareTwin,
			compareTwinOfPrevious,
			func(s source, trace *strings.Builder) { simulate(s, trace, coverage{}) },
			func(s source, trace *strings.Builder) { simulatePrevious(s, trace, coverage{}) },
		} {
			var trace strings.Builder
			if err := try(func() { history(fromBytes(b), &trace) }); err != nil {
				t.Fatalf("%v\n%s", err, trace.String())
			}
		}
	})
}
