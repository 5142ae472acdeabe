package reorder

import (
	"slices"
	"testing"

	"github.com/tidemarkhq/tidemark/watermark"
)

// doubted steps a record that is invalid on an outside service's word.
func doubted(p *Partition, offset int64) {
	p.Step(Record{Offset: offset, Invalid: true, Outside: true}, 0)
}

// TestSettledIsBounded: with no room for another span a verdict can only lengthen
// the last one, until what stands between them has been released early.
func TestSettledIsBounded(t *testing.T) {
	p := NewEngine(Options{Bound: 1 << 40}, 0).Assign(Fresh(0, 0, 0), 0)
	offset := int64(0)
	for range MaxSettled {
		p.Step(Record{Offset: offset, Time: watermark.Time(offset)}, 0)
		if !p.Settles(offset + 1) {
			t.Fatalf("no room at %d", offset+1)
		}
		doubted(p, offset+1)
		offset += 2
	}
	if !p.Settles(offset) || !p.Settles(offset+7) {
		t.Error("the last span cannot be lengthened")
	}
	doubted(p, offset)
	p.Step(Record{Offset: offset + 1, Time: watermark.Time(offset)}, 0)
	offset += 2
	if p.Settles(offset) {
		t.Error("there is room for a span more")
	}
	if text := func() (text any) {
		defer func() { text = recover() }()
		doubted(p, offset)
		return nil
	}(); text == nil {
		t.Error("a verdict that cannot be remembered was taken")
	}
	for moves := 0; !p.Settles(offset); moves++ {
		if p.MakeRoom(); moves > MaxSettled+1 {
			t.Fatal("room is never made")
		}
		for p.Next(new(Release)) {
		}
	}
	doubted(p, offset)
	if s := p.Snapshot(); len(s.Settled) > MaxSettled || s.Settled[0].From < s.Low || s.Settled[len(s.Settled)-1] != (Span{offset, offset + 1}) {
		t.Errorf("L=%d, settled %v", s.Low, s.Settled)
	}
}

// TestSettledReach: spans lie so near to L that their numbers are short.
func TestSettledReach(t *testing.T) {
	p := NewEngine(Options{Bound: 1 << 40}, 0).Assign(Fresh(5, 0, 0), 0)
	if !p.Settles(5 + 2*settledReach) {
		t.Error("with nothing held, nothing is read again")
	}
	p.Step(Record{Offset: 5, Time: 1}, 0)
	if !p.Settles(5+settledReach-1) || p.Settles(5+settledReach) {
		t.Error("the reach is another")
	}
	doubted(p, 5+settledReach-1)
	s := p.Snapshot()
	if got, err := Decode(s.Encode(here), s.Low, s.LowEpoch, here); err != nil || !same(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRecalls: while reading again, what was settled needs no event time, and
// neither does a record that was written over the log.
func TestRecalls(t *testing.T) {
	e := NewEngine(Options{Bound: 1 << 40}, 0)
	s := Snapshot{Low: 3, Next: 9, W: 0, Max: 9, Count: 1, Sum: OffsetHash(3), Settled: []Span{{5, 7}}}
	p := e.Assign(s, 0)
	for offset, want := range []bool{3: false, 4: false, 5: true, 6: true, 7: false, 8: false} {
		if offset >= 3 && (p.Recalls(int64(offset), 0) != want || p.Settles(int64(offset)) != want) {
			t.Errorf("#%d: recalled %v, settles %v", offset, p.Recalls(int64(offset), 0), p.Settles(int64(offset)))
		}
	}
	if !p.Recalls(4, 1) {
		t.Error("a newer leader's record needs no event time")
	}
	for offset, want := range map[int64]Verdict{3: OnTime, 5: Settled, 6: Settled} {
		p := e.Assign(s, 0)
		if got, _ := p.Step(Record{Offset: offset, Time: 4}, 0); got != want {
			t.Errorf("#%d is %v, want %v", offset, got, want)
		}
	}
	p.Step(Record{Offset: 3, Time: 4}, 0)
	if loss := p.EndReplay(9, false); loss != nil {
		t.Fatal(loss)
	}
	if p.Recalls(5, 9) {
		t.Error("what has been read again is not recalled")
	}
	if got := p.Snapshot(); !slices.Equal(got.Settled, s.Settled) {
		t.Errorf("settled %v, was %v", got.Settled, s.Settled)
	}
	if p.Rewind(6); !slices.Equal(p.Snapshot().Settled, []Span{{5, 6}}) {
		t.Errorf("rewound to 6: %v", p.Snapshot().Settled)
	}
	if p.Rewind(5); len(p.Snapshot().Settled) != 0 {
		t.Errorf("rewound to 5: %v", p.Snapshot().Settled)
	}
}
