package position

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A run of the engine puts out what it does, with the clock or without; it is cut after any
// record that came out, and its position is made again from there. What follows has to be
// what would have followed (records alone), or to be true (the clock, too).

// put is something that came out.
type put struct {
	reorder.Position
	epoch  uint32
	late   bool
	dup    bool
	future bool
	mark   int64 // as its header says; noMark: none
}

const noMark = math.MinInt64

func (p put) String() string {
	return fmt.Sprintf("%d@%d e%d late=%v dup=%v mark=%d", p.Time, p.Offset, p.epoch, p.late, p.dup, p.mark)
}

// tape is a source and the laws that judge it.
type tape struct {
	records []sourceRecord
	bodies  [][]byte
	laws    reorder.Options
	drop    bool
}

// first is a byte that a body is known by, 0: by nothing.
type first struct{}

func (first) Of(body []byte) []byte {
	if len(body) == 0 || body[0] == 0 {
		return nil
	}
	return body[:1]
}

func newTape(rnd *rand.Rand, clock bool) *tape {
	t := &tape{laws: reorder.Options{
		Strategy: []watermark.Strategy{watermark.Bounded, watermark.WindowMin, watermark.Punctuated, watermark.Adaptive}[rnd.IntN(4)],
		Bound:    time.Duration(1+rnd.IntN(8)) * time.Millisecond, Floor: time.Millisecond, TargetLate: 50_000,
		Window: time.Duration(1+rnd.IntN(6)) * time.Millisecond, Lateness: time.Duration(rnd.IntN(3)) * time.Millisecond,
		ReanchorAfter: []int{0, 0, 2, 4}[rnd.IntN(4)],
	}}
	if clock {
		t.laws.IdleTimeout = time.Millisecond
	}
	if rnd.IntN(2) == 0 {
		t.laws.Identity, t.drop = first{}, rnd.IntN(2) == 0
	}
	grain := []int{1, 1_000_000}[rnd.IntN(2)] // of event times, ns
	at, offset := int64(1e9), int64(rnd.IntN(3))
	for range 20 + rnd.IntN(60) {
		at += int64(rnd.IntN(1_500_000))
		when := at - int64(rnd.IntN(12_000_000))
		if rnd.IntN(30) == 0 {
			at -= 40_000_000 // the clock of the source jumps back
		}
		r := sourceRecord{Offset: offset, Time: watermark.Time(when - when%int64(grain)), Stamp: watermark.Time(at), Marker: watermark.None}
		if n := len(t.records); n > 0 && rnd.IntN(3) == 0 {
			r.Time = t.records[n-1-rnd.IntN(min(n, 4))].Time
		}
		body := []byte{byte(rnd.IntN(4))}
		if t.laws.Identity != nil && body[0] != 0 {
			r.ID = uint64(body[0])
		}
		r.Invalid = rnd.IntN(25) == 0
		if rnd.IntN(3) == 0 {
			r.Marker = watermark.Time(at - 8_000_000)
		}
		t.records, t.bodies = append(t.records, r), append(t.bodies, body)
		offset += 1 + int64(rnd.IntN(5)/4)
	}
	return t
}

// play goes on from a snapshot over what has not been read, and returns what comes out, and how
// many records are held in the end.
func (t *tape) play(s reorder.Snapshot, rnd *rand.Rand) (all []put, left int) {
	e := reorder.NewEngine(t.laws, math.MaxInt64)
	p := e.Assign(s, 0)
	now := watermark.Instant(0)
	var rel reorder.Release
	release := func() {
		for p.Next(&rel) {
			out := put{Position: rel.Position, epoch: rel.Epoch, mark: rel.Watermark, dup: rel.Duplicate}
			if rel.Duplicate {
				out.late, out.mark = true, markOf(p.Watermark())
			}
			all = append(all, out)
		}
	}
	for i, r := range t.records {
		if r.Offset < s.Low {
			continue
		}
		if end, again := p.Replaying(); again && r.Offset >= end {
			if loss := p.EndReplay(math.MaxInt64, false); loss != nil {
				panic(loss)
			}
			release()
		}
		step := func() reorder.Verdict {
			v, body := p.Step(reorder.Record{Offset: r.Offset, Time: r.Time, Invalid: r.Invalid, Size: len(t.bodies[i])}, 0)
			if v == reorder.OnTime || v == reorder.Remembered {
				copy(body, t.bodies[i])
			}
			return v
		}
		_, again := p.Replaying()
		v := step()
		if v == reorder.Flush {
			release()
			v = step()
		}
		w := p.Watermark()
		if r.Marker != watermark.None && !again {
			p.Mark(r.Marker, r.Marker)
		}
		switch v {
		case reorder.BehindWatermark, reorder.Overflow, reorder.InvalidTime:
			all = append(all, put{Position: reorder.Position{Time: r.Time, Offset: r.Offset}, epoch: p.Epoch(), late: true, future: r.Invalid, mark: markOf(w)})
		}
		if end, again := p.Replaying(); again && p.Position() >= end {
			if loss := p.EndReplay(math.MaxInt64, false); loss != nil {
				panic(loss)
			}
		}
		release()
		if _, again := p.Replaying(); rnd != nil && !again && rnd.IntN(4) == 0 {
			switch rnd.IntN(3) {
			case 0:
				p.MakeRoom()
			default: // silence
				e.Tick(now)
				until := now + watermark.Instant(rnd.IntN(8_000_000))
				p.Observe(watermark.Stretch{First: now, Last: until, End: p.NextOffset()})
				now = until
			}
			release()
		}
	}
	return all, p.Owed()
}

func markOf(w watermark.Time) int64 {
	if w == watermark.None {
		return noMark
	}
	return w.Millis()
}

// rebuilt makes the position again after some of what came out.
func (t *tape) rebuilt(out []put, taken ...put) (*retracing, error) {
	o := &outputs{epochs: map[uint32]*stretch{}}
	for _, p := range out {
		if p.dup && t.drop {
			continue
		}
		s := o.epochs[p.epoch]
		if s == nil {
			s = newStretch(p.epoch, p.Offset)
			o.epochs[p.epoch] = s
		}
		s.from, s.to = min(s.from, p.Offset), max(s.to, p.Offset)
		if p.late {
			s.late.add(p.Offset)
			if p.future {
				s.unjudged.add(p.Offset)
			}
			if p.mark != noMark && !p.dup {
				s.raise(p.mark, 0)
			}
			continue
		}
		s.ordered.add(p.Offset)
		s.raise(p.mark+1, 1)
		s.last = &kgo.Record{Offset: p.Offset, Timestamp: time.Unix(0, int64(p.Time))}
	}
	r := &retracing{highest: -1, repeats: t.laws.Identity != nil, dropped: t.drop}
	r.run, _ = o.generation()
	for _, s := range r.run {
		r.highest = max(r.highest, s.to)
	}
	if len(r.run) > 0 {
		r.now = r.run[len(r.run)-1]
		r.epoch = r.run[0].epoch
		if r.now.last != nil {
			r.any, r.last = true, reorder.Position{Time: watermark.Time(r.now.last.Timestamp.UnixNano()), Offset: r.now.last.Offset}
		}
	}
	t.takeAway(r, out, taken)
	r.begin(t.laws)
	for _, in := range t.records {
		if r.done {
			break
		}
		if err := r.step(in); err != nil {
			return nil, err
		}
	}
	if !r.done {
		r.finish()
	}
	err := t.confirm(r)
	r.trustRepeats()
	if err == nil {
		err = r.doubt()
	}
	return r, err
}

// takeAway has retention have taken what came out first.
func (t *tape) takeAway(r *retracing, left, taken []put) {
	g := &r.gone
	g.below = math.MaxInt64
	for _, p := range taken {
		g.ordered, g.late = g.ordered || !p.late, g.late || p.late
	}
	for i := len(left) - 1; i >= 0; i-- {
		switch p := left[i]; {
		case p.dup && t.drop:
		case p.late:
			g.below = p.Offset
		case len(r.run) > 0 && p.epoch >= r.run[0].epoch:
			g.before, g.first = p.Position, p.epoch
		}
	}
}

// confirm does what confirmRepeats does.
func (t *tape) confirm(r *retracing) error {
	for _, was := range r.repeated {
		found := false
		for _, in := range t.records {
			found = found || in.Offset < was.Offset && in.Time == was.Time && in.ID == was.id && !in.Invalid && r.inOrder(in.Offset)
		}
		switch {
		case found || was.Offset >= r.end:
		case was.Offset > r.highest:
			r.giveUp()
		default:
			return fmt.Errorf("offset %d repeats nothing", was.Offset)
		}
	}
	return nil
}

func TestRetracing(t *testing.T) {
	exact := 0
	for seed := range uint64(4000) {
		clock := seed%2 == 1
		rnd := rand.New(rand.NewPCG(seed, 1))
		tape := newTape(rnd, clock)
		origin := reorder.Fresh(0, -1, 0)
		var times *rand.Rand
		if clock {
			times = rnd
		}
		whole, left := tape.play(origin, times)
		cut := rnd.IntN(len(whole) + 1)
		if clock && rnd.IntN(3) == 0 { // other settings than those of the run
			other := newTape(rnd, true).laws
			other.Identity, other.ReanchorAfter = tape.laws.Identity, tape.laws.ReanchorAfter
			tape.laws = other
		}
		r, err := tape.rebuilt(whole[:cut])
		fail := func(format string, args ...any) {
			var b bytes.Buffer
			for _, in := range tape.records {
				fmt.Fprintf(&b, "\n  %d@%d id=%d invalid=%v mark=%d", in.Time, in.Offset, in.ID, in.Invalid, in.Marker)
			}
			t.Fatalf("seed %d, %+v, cut at %d of %d: %s\nout: %s\nsource: %s", seed, tape.laws, cut, len(whole), fmt.Sprintf(format, args...), strings.Join(texts(whole), "\n     "), b.String())
		}
		if clock && r != nil && r.byEpoch && err != nil {
			continue
		}
		if err != nil {
			fail("%v", err)
		}
		s := r.snapshot(1)
		g := settling{t: r, s: &s, held: -1}
		for _, in := range tape.records {
			if in.Offset >= s.Low && in.Offset < s.Next {
				if err := g.step(&in); err != nil {
					fail("%v", err)
				}
			}
		}
		s.Settled = g.spans
		rest, held := func() ([]put, int) {
			defer func() {
				if p := recover(); p != nil {
					fail("%v: from %+v", p, s)
				}
			}()
			return tape.play(s, nil)
		}()
		came := len(visible(whole[:cut], tape.drop)) + len(visible(rest, tape.drop)) + held
		told := map[int64]bool{} // those that were dropped, too
		for _, p := range append(whole[:cut:cut], rest...) {
			told[p.Offset] = true
		}
		for _, o := range r.repeated { // by the settings of now
			if o.Offset < r.end {
				told[o.Offset] = true
			}
		}
		if want := len(tape.records); len(told)+held < want || came > want {
			fail("%d records came out or are held, %d of them are told of, want %d", came, len(told)+held, want)
		}
		if !clock {
			if held != left {
				fail("%d are held, want %d", held, left)
			}
			if !r.exact() && cut > 0 {
				fail("not exact: reached %v end %d highest %d now %d last %v floor %d law %+v at %+v", r.reached, r.end, r.highest, r.now.epoch, r.last, r.now.floor, r.snapshotOfLaw(), r.at)
			}
			want := texts(visible(whole[cut:], tape.drop))
			if got := texts(visible(rest, tape.drop)); strings.Join(got, "\n") != strings.Join(want, "\n") {
				fail("after H=%d W=%d: got\n     %s", s.Next, s.W, strings.Join(got, "\n     "))
			}
			exact++
			continue
		}
		if why := tape.untrue(append(append([]put{}, visible(whole[:cut], tape.drop)...), visible(rest, tape.drop)...)); why != "" {
			fail("%s; after H=%d W=%d releasing %v %v: got\n     %s", why, s.Next, s.W, s.Releasing, s.Frontier, strings.Join(texts(rest), "\n     "))
		}
	}
	t.Logf("%d exact", exact)
}

func visible(all []put, drop bool) (out []put) {
	for _, p := range all {
		if !p.dup || !drop {
			out = append(out, p)
		}
	}
	return out
}

func texts(all []put) (out []string) {
	for _, p := range all {
		out = append(out, p.String())
	}
	return out
}

// untrue says what is wrong with all that came out: something came twice, or is behind a
// promise, or behind what came before.
func (t *tape) untrue(all []put) string {
	seen := map[int64]bool{}
	var last *put
	for i, p := range all {
		if seen[p.Offset] {
			return fmt.Sprintf("%v came twice", p)
		}
		seen[p.Offset] = true
		if p.late {
			continue
		}
		if last != nil && last.epoch == p.epoch {
			if p.Before(last.Position) {
				return fmt.Sprintf("%v is behind %v", p, *last)
			}
			if p.Time.Millis() <= last.mark || p.mark < last.mark {
				return fmt.Sprintf("%v breaks the promise of %v", p, *last)
			}
		}
		if last != nil && p.epoch < last.epoch {
			return fmt.Sprintf("%v is of an epoch before %v", p, *last)
		}
		last = &all[i]
	}
	return ""
}

// A record that came out in order and is gone since, by compaction or by hand, is nothing that
// is held, unless nothing in the outputs is behind it: it would come out a second time, among
// what is older or younger, or in another epoch.
func TestRetracingOfHoles(t *testing.T) {
	refused := 0
	for seed := range uint64(4000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		tape := newTape(rnd, seed%2 == 1)
		var times *rand.Rand
		if seed%2 == 1 {
			times = rnd
		}
		whole, _ := tape.play(reorder.Fresh(0, -1, 0), times)
		var ordered []int
		for i, p := range whole {
			if !p.late {
				ordered = append(ordered, i)
			}
		}
		if len(ordered) < 2 {
			continue
		}
		n := rnd.IntN(len(ordered) - 1)
		gone := whole[ordered[n]]
		r, err := tape.rebuilt(slices.Delete(slices.Clone(whole), ordered[n], ordered[n]+1))
		if err != nil {
			refused++
			continue
		}
		for _, o := range r.owed {
			if o.Offset == gone.Offset && o.Offset < r.end {
				t.Fatalf("seed %d: %v is gone from the outputs, and %v came out behind it; it is owed again, by %+v", seed, gone, whole[ordered[len(ordered)-1]], r.snapshot(1))
			}
		}
	}
	t.Logf("%d refused", refused)
}

// What retention has taken of the outputs has come out. A position that is made from the rest
// holds what the run held, or none is made.
func TestRetracingAfterRetention(t *testing.T) {
	refused := 0
	for seed := range uint64(4000) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		tape := newTape(rnd, false)
		whole, _ := tape.play(reorder.Fresh(0, -1, 0), nil)
		cut := rnd.IntN(len(whole) + 1)
		whole = whole[:cut]
		n := [2]int{rnd.IntN(cut + 1), rnd.IntN(cut + 1)}
		var left, taken []put
		for i, p := range whole {
			which := 0
			if p.late {
				which = 1
			}
			if i < n[which] {
				taken = append(taken, p)
			} else {
				left = append(left, p)
			}
		}
		want, err := tape.rebuilt(whole)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := tape.rebuilt(left, taken...)
		if err != nil || got.gone.ordered && !got.any {
			refused++
			continue
		}
		came := map[int64]bool{}
		for _, p := range visible(whole, tape.drop) {
			came[p.Offset] = true
		}
		for _, o := range got.owed {
			if o.Offset <= got.highest && came[o.Offset] { // what nothing left is above is not known to have been read
				t.Fatalf("seed %d: offset %d came out, and is owed again: %+v instead of %+v\nleft: %s\ntaken: %s", seed, o.Offset, got.snapshot(1), want.snapshot(1), strings.Join(texts(left), "\n     "), strings.Join(texts(taken), "\n     "))
			}
		}
	}
	t.Logf("%d refused", refused)
}
