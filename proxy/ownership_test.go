package proxy

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What is ours is what the group says, not what we remember; and what is there
// to read is what the broker says, not how fast it comes.

// refuseOnce fails the next produce of a sidecar's transaction.
func (c *cluster) refuseOnce(s *sidecar) {
	c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: 1,
		When: func(r kmsg.Request) bool {
			p, ok := r.(*kmsg.ProduceRequest)
			return ok && p.TransactionID != nil && *p.TransactionID == s.cfg.TransactionalID()
		},
	})
}

// afterTwoRevocations gives a sidecar two revocations while it waits in one
// poll, which is how two members joining a second apart look to a quiet one,
// and then records on all partitions.
func (c *cluster) afterTwoRevocations(topic string, env ...string) (a, d *sidecar, base int64) {
	a = c.start(topic, env...)
	c.await("all partitions", func() bool { return len(c.owned(a)) == 6 })
	time.Sleep(6 * time.Second)
	b := c.start(topic, append(env, instance("b"))...)
	time.Sleep(1200 * time.Millisecond)
	d = c.start(topic, append(env, instance("d"))...)
	c.await("a third each", func() bool {
		return len(c.owned(a)) == 2 && len(c.owned(b)) == 2 && len(c.owned(d)) == 2
	})
	time.Sleep(6 * time.Second)
	base = time.Now().Add(-time.Hour).UnixMilli()
	for i := range int64(10) {
		for n := range int32(6) {
			c.produce(c.cl, record(topic, n, base+100*i, ""))
		}
	}
	c.awaitRead(a)
	return a, d, base
}

func TestTwoRevocationsInOnePoll(t *testing.T) {
	severalMembers(t)
	for _, policy := range []string{"fail", "continue"} {
		t.Run(policy, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(6)
				a, d, base := c.afterTwoRevocations(topic, noDrain, "TIDEMARK_ON_DATA_LOSS="+policy)
				c.refuseOnce(a) // and so it takes up again what it takes for its own
				for i := range int64(10) {
					c.produce(c.cl, record(topic, c.owned(a)[0], base+1000+100*i, ""))
				}
				time.Sleep(15 * time.Second)
				if !a.running() {
					t.Fatalf("ended: %v", a.err)
				}
				d.stop()
				time.Sleep(15 * time.Second)
				if report := c.verify(a.cfg); !report.Holds() {
					t.Errorf("%+v", report)
				}
			})
		})
	}
}

// TestForeignIsGivenUp: a partition that is assigned to somebody else is none of ours
// from the next turn on, whether a revocation is heard of or not; but not before what
// has been done with it is committed, for until then nobody else has it.
func TestForeignIsGivenUp(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		s := newSession(c.config(topic), c.adm, map[string]preflight.Topic{}, newProcess(slog.Default()))
		for n := range int32(2) {
			p := s.working(emit.Source{}, reorder.Fresh(0, -1, 0), 0)
			p.Topic, p.Partition = topic, n
			s.install(p)
		}
		assign := func(ps ...int32) { s.member.Assign(map[string][]int32{topic: ps}) }
		has := func(why string, zero, one bool) {
			t.Helper()
			s.forgetForeign()
			if got0, got1 := s.find(topic, 0) != nil, s.find(topic, 1) != nil; got0 != zero || got1 != one {
				t.Errorf("%s: has 0: %v, has 1: %v", why, got0, got1)
			}
		}
		assign(0, 1)
		has("both are ours", true, true)
		s.find(topic, 1).state.Skip(1, 0)
		assign(0)
		has("1 has something to commit", true, true)
		s.find(topic, 1).state.Advance()
		has("it is committed", true, false)
		assign()
		has("nothing is ours", false, false)
	})
}

// TestTwoRevocationsThenDrain: a partition that is no longer ours is not
// drained by the clock.
func TestTwoRevocationsThenDrain(t *testing.T) {
	severalMembers(t)
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(6)
		a, _, _ := c.afterTwoRevocations(topic, "TIDEMARK_IDLE_TIMEOUT=3s")
		time.Sleep(30 * time.Second)
		if report := c.verify(a.cfg); !report.Holds() {
			t.Errorf("%+v", report)
		}
	})
}

// heldAndStopped runs a sidecar over n records, the last of which it holds, and
// stops it.
func (c *cluster) heldAndStopped(topic string, n int64) *sidecar {
	base := time.Now().Add(-time.Hour).UnixMilli()
	s := c.start(topic, noDrain)
	for i := range n {
		c.produce(c.cl, record(topic, 0, base+100*i, ""))
	}
	c.awaitRead(s)
	s.stop()
	return s
}

// TestSlowReplayIsNoLoss: fetches that bring nothing say nothing about what
// there is to read.
func TestSlowReplayIsNoLoss(t *testing.T) {
	besideOthers(t)
	for _, policy := range []string{"fail", "continue"} {
		t.Run(policy, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				c.heldAndStopped(topic, 10)
				until := time.Now().Add(12 * time.Second)
				c.fake.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: 100_000,
					When: func(kmsg.Request) bool { return time.Now().Before(until) },
				})
				s := c.start(topic, noDrain, "TIDEMARK_ON_DATA_LOSS="+policy)
				time.Sleep(30 * time.Second)
				if !s.running() {
					t.Fatalf("ended: %v", s.err)
				}
				s.stop()
				if report := c.verify(s.cfg); !report.Holds() || report.Buffered != 6 {
					t.Errorf("%+v", report)
				}
			})
		})
	}
}

// TestStaleEndsAreNoLoss: an end of the log from before a partition was taken
// up says nothing about it.
func TestStaleEndsAreNoLoss(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		a := c.heldAndStopped(topic, 10)
		s := newSession(a.cfg, c.adm, map[string]preflight.Topic{}, newProcess(slog.Default()))
		p := s.working(emit.Source{}, c.commits(a.cfg)[0], 0)
		p.since = 10
		p.Topic = topic
		for _, step := range []struct {
			read   int64
			sent   watermark.Instant
			leader int32
			loss   bool
		}{
			{read: 6, sent: 11},             // a record is left to read
			{read: 7, sent: 9},              // from before the partition was taken up
			{read: 7, sent: 11, leader: -1}, // of a broker that does not know a newer leader
			{read: 7, sent: 11, loss: true},
		} {
			p.state.Skip(step.read, 0)
			p.ends = group.Ends{Extent: group.Extent{High: 7, Stable: 7, Told: step.sent}, Epoch: step.leader}
			if err := s.takeAnswer(c.ctx, p); (err != nil) != step.loss {
				t.Errorf("%+v: %v", step, err)
			}
		}
	})
}

// TestStrangersTransactionHoldsNobodyUp: going back to the commit waits for
// transactions on our own partitions only. (kfake has the whole group wait, so
// it is the question that is looked at.)
func TestStrangersTransactionHoldsNobodyUp(t *testing.T) {
	severalMembers(t)
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		a := c.start(topic, noDrain)
		c.await("both partitions", func() bool { return len(c.owned(a)) == 2 })
		b := c.start(topic, noDrain, instance("b"))
		c.await("one each", func() bool { return len(c.owned(a)) == 1 && len(c.owned(b)) == 1 })
		time.Sleep(6 * time.Second)
		asked, foreign := 0, 0
		c.fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.UnknownServerError, Count: 1 << 30,
			When: func(r kmsg.Request) bool {
				if f, ok := r.(*kmsg.OffsetFetchRequest); ok && f.RequireStable {
					asked++
					if len(f.Groups) != 1 || len(f.Groups[0].Topics) != 1 || len(f.Groups[0].Topics[0].Partitions) != 1 {
						foreign++
					}
				}
				return false // only looking
			},
		})
		c.refuseOnce(a)
		base := time.Now().Add(-time.Hour).UnixMilli()
		for i := range int64(100) {
			c.produce(c.cl, record(topic, 0, base+100*i, ""), record(topic, 1, base+100*i, ""))
		}
		time.Sleep(10 * time.Second) // to await it would be to ask, too
		if asked == 0 || foreign > 0 {
			t.Errorf("asked %d times for stable offsets, %d times for more than our own", asked, foreign)
		}
	})
}

// TestRewrittenLogIsRead: when a new leader has written over the log and that
// is accepted, reading goes on where the logs part, in a replay as well.
func TestRewrittenLogIsRead(t *testing.T) {
	for _, held := range []bool{true, false} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			a := c.heldAndStopped(topic, 20)
			snap := c.commits(a.cfg)[0]
			if !held {
				snap = reorder.Fresh(snap.Low, 0, 0)
			}
			cfg := c.config(topic, "TIDEMARK_ON_DATA_LOSS=continue")
			s := newSession(cfg, c.adm, map[string]preflight.Topic{}, newProcess(slog.New(slog.DiscardHandler)))
			s.cl = c.client()
			defer s.cl.Close()
			p := s.working(emit.Source{}, snap, 0)
			p.Topic = topic
			err := s.onDataLoss(c.ctx, p, &kgo.ErrDataLoss{Topic: topic, ConsumedTo: snap.Low, ResetTo: 9})
			if at := p.state.Position(); err != nil || at != 9 {
				t.Errorf("held %v: goes on at %d (L was %d), want 9; %v", held, at, snap.Low, err)
			}
		})
	}
}

// working returns a partition that the session works on from a snapshot. It is not
// installed.
func (s *session) working(src emit.Source, snap reorder.Snapshot, now watermark.Instant) *partition {
	p := &partition{Source: src, ledger: s.ledgers.Open(src, 0), output: s.writer.Source(src)}
	p.work(s.line, s.engine.Assign(snap, now), now)
	return p
}
