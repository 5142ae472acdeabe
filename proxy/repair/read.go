package repair

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Reading goes through late topics.
type Reading struct {
	Rule  Rule
	Limit int64 // bytes of corrections to hold
	Most  int   // shares to hand over at once; 0: any number

	// Callbacks; each may be nil.
	Unreadable func(r *kgo.Record, err error)
	NoTime     func(r *kgo.Record, err error)
	Split      func(Stretch) // not all of its corrections fit into memory
	Progress   func(offsets int64)
}

// Run reads the stretches one after the other and publishes their corrections, as much at a
// time as the limit allows:
//
//	stretches   a──────┤ b──┤ c───────────────────────┤ d─┤
//	            └── one ───┘  └─ one ─┘└─ one ─┘└── one ──┘
//
// Several stretches go together. One that does not fit beside others goes alone,
// and one that does not fit at all, here c, goes in pieces of the log, each of
// them in order by itself. publish makes shares durable together; Run stops at its first
// error.
func (g *Reading) Run(ctx context.Context, cl *kgo.Client, stretches []Stretch, publish func(context.Context, []*Share) error) error {
	reader := emit.NewLateReader(g.Rule.Prefix)
	var whole []*Share // of stretches that have been read to their end
	var bytes int64    // that they hold
	hand := func(shares ...*Share) error {
		for _, s := range shares {
			s.sort()
		}
		return publish(ctx, shares)
	}
	for _, st := range stretches {
		s := &Share{Stretch: st, Next: st.Start}
		s.counts.Gone = st.Gone
		split := false
		late := scan.Stretch{Topic: st.Late, Partition: st.Partition, Start: st.Start, End: st.End}
		for r, err := range scan.Read(ctx, cl, late) {
			if err != nil {
				return err
			}
			next := r.Offset + 1
			g.progress(next - s.Next)
			if err := g.take(reader, s, r); err != nil {
				return err
			}
			s.Next = next
			if bytes+s.bytes < g.Limit || next == st.End {
				continue
			}
			if len(whole) > 0 {
				if err := hand(whole...); err != nil {
					return err
				}
				whole, bytes = nil, 0
				continue
			}
			if !split && g.Split != nil {
				g.Split(st)
			}
			split = true
			if err := hand(s); err != nil {
				return err
			}
			s = &Share{Stretch: st, Next: next}
		}
		g.progress(st.End - s.Next)
		s.Next = st.End
		whole, bytes = append(whole, s), bytes+s.bytes
		if len(whole) == g.Most {
			if err := hand(whole...); err != nil {
				return err
			}
			whole, bytes = nil, 0
		}
	}
	if len(whole) == 0 {
		return nil
	}
	return hand(whole...)
}

func (g *Reading) progress(offsets int64) {
	if g.Progress != nil {
		g.Progress(offsets)
	}
}

// take counts a late record, and holds its correction. A record that cannot be decided now
// must not be skipped: it ends the reading.
func (g *Reading) take(reader *emit.LateReader, s *Share, r *kgo.Record) error {
	c := &s.counts
	c.Read++
	what, late, t, err := g.Rule.judge(reader, r)
	switch what {
	case correct:
		h := held{reorder.Position{Time: t, Offset: late.SourceOffset}, late.Epoch, r.Offset, reader.Correction(r, s.To)}
		s.held = append(s.held, h)
		s.bytes += cost(h.record)
	case expired:
		c.Expired++
	case otherReason:
		c.other(late.Reason)
	case corrected:
		c.Corrected++
	case unreadable:
		c.Unreadable++
		if g.Unreadable != nil {
			g.Unreadable(r, err)
		}
	case noTime:
		c.NoTime++
		if g.NoTime != nil {
			g.NoTime(r, err)
		}
	case undecided:
		return fmt.Errorf("find the event time of %s partition %d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return nil
}
