package proxy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// The wall clock decides nothing here: no drain, so the outputs are a function
// of the log.
const noDrain = "TIDEMARK_IDLE_TIMEOUT=0"

// A sidecar that crashes again and again, at any request, puts out the bytes
// of one that never did.
func TestKafkaCrashAnywhere(t *testing.T) {
	besideOthers(t)
	for seed := range seeds(5, 2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: seed, records: 2000, partitions: 3, transactions: true, pause: 60 * time.Millisecond}
				topic := c.topic(w.partitions)
				const windows = "TIDEMARK_WINDOWS=tumbling:1s,hopping:5s/2s"
				s := c.crashing(topic, seed, c.writing(topic, &w), noDrain, windows, "TIDEMARK_COMMIT_INTERVAL=20ms")
				c.awaitRead(s)
				s.stop()
				c.holds(s.cfg, &w)

				c.sameBeside(s, noDrain, windows)
			})
		})
	}
}

// beside is the configuration of a second group on a topic, with outputs of
// its own.
func beside(topic string, env ...string) []string {
	return append(env, "TIDEMARK_GROUP=beside-"+topic, "TIDEMARK_INSTANCE=b",
		"TIDEMARK_ORDERED_SUFFIX=.beside.ordered", "TIDEMARK_LATE_SUFFIX=.beside.late")
}

// At least once nothing is lost, and what comes again is no worse than that.
func TestKafkaCrashAtLeastOnce(t *testing.T) {
	besideOthers(t)
	for seed := range seeds(3, 1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: seed, records: 2000, partitions: 3, pause: 60 * time.Millisecond}
				topic := c.topic(w.partitions)
				s := c.crashing(topic, seed, c.writing(topic, &w), "TIDEMARK_DELIVERY=at-least-once", "TIDEMARK_COMMIT_INTERVAL=20ms")
				c.awaitDrained(s)
				s.stop()
				if r := c.verify(s.cfg); r.Read != int64(w.records) || r.Buffered != 0 {
					t.Errorf("%d read of %d, %d buffered", r.Read, w.records, r.Buffered)
				}
			})
		})
	}
}

// seeds yields seeds: so many on kfake, so many on a real cluster, and few with
// -short.
func seeds(fake, real uint64) func(func(uint64) bool) {
	n := fake
	switch {
	case os.Getenv(brokersVar) != "":
		n = real
	case testing.Short():
		n = 1 + fake/5
	}
	return func(yield func(uint64) bool) {
		for seed := range n {
			if !yield(seed) {
				return
			}
		}
	}
}

// crashing starts a sidecar that crashes at a random request, again and again
// until the source has been written, and returns one that does not.
func (c *cluster) crashing(topic string, seed uint64, written <-chan struct{}, env ...string) *sidecar {
	c.t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 2))
	for {
		s := c.start(topic, env...)
		s.link.breakAt(1+rnd.IntN(150), rnd.IntN(2) == 0)
		select {
		case <-s.link.broken:
		case <-s.done:
			c.t.Fatalf("the sidecar has ended: %v", s.err)
		case <-written:
			s.crash()
			return c.start(topic, env...)
		}
		s.crash()
	}
}

// The release of one record's watermark step is too long for one transaction:
// its commits carry a frontier, and a crash between them goes on from there.
func TestKafkaCrashInsideLongRelease(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		n := 60_000 // more than are ever in flight, so that even in fake time the release waits
		c.burst(topic, n)
		env := []string{noDrain, "TIDEMARK_COMMIT_INTERVAL=10ms", "TIDEMARK_MAX_OUT_OF_ORDERNESS=20m"}
		s := c.start(topic, env...)
		s.link.delay.Store(int64(5 * time.Millisecond))
		cuts := 0
		for !c.read(s.cfg) {
			s.lives()
			if snaps := c.commits(s.cfg); len(snaps) > 0 && snaps[0].Releasing && cuts < 3 {
				cuts++
				s.crash()
				s = c.start(topic, env...)
				s.link.delay.Store(int64(5 * time.Millisecond))
			}
			time.Sleep(time.Millisecond)
		}
		s.stop()
		if cuts == 0 {
			t.Error("no commit was seen inside the release")
		}
		if r := c.verify(s.cfg); r.Ordered != int64(n) || r.Buffered != 1 {
			t.Errorf("%d ordered, %d buffered", r.Ordered, r.Buffered)
		}
	})
}

// burst writes n records of one second, and one two hours later.
func (c *cluster) burst(topic string, n int) {
	c.t.Helper()
	base := time.Now().Add(-5 * time.Hour).UnixMilli()
	rs := make([]*kgo.Record, 0, 5000)
	for i := range n {
		rs = append(rs, record(topic, 0, base+int64(i*7919%1000), ""))
		if len(rs) == cap(rs) || i == n-1 {
			c.produce(c.cl, rs...)
			rs = rs[:0]
		}
	}
	c.produce(c.cl, record(topic, 0, base+2*time.Hour.Milliseconds(), "end"))
}

// What the wall clock alone released is committed with it: a crash right after
// brings nothing out twice.
func TestKafkaCrashAfterReleaseByClock(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		at := func(r int64) { c.produce(c.cl, record(topic, 0, base+r, fmt.Sprint(r))) }
		at(0)
		at(300) // released by the clock some time after the first
		s := c.start(topic)
		c.await("the first record out", func() bool {
			snaps := c.commits(s.cfg)
			return len(snaps) > 0 && snaps[0].W != reorder.Fresh(0, 0, 0).W && snaps[0].Count < 2
		})
		s.crash()
		s = c.start(topic)
		c.awaitDrained(s)
		s.crash()
		at(301) // above what has come out: behind the watermark or not, but once
		at(2000)
		s = c.start(topic)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 4 || r.Buffered != 0 {
			t.Errorf("%d read, %d buffered", r.Read, r.Buffered)
		}
	})
}

// A crash leaves the transaction open; the next start of the same instance
// ends it before it joins the group, and readers go on.
func TestKafkaCrashLeavesTransactionOpen(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, record(topic, 0, base, "first"), record(topic, 0, base+1000, "second"))
		s := c.start(topic, noDrain, "TIDEMARK_COMMIT_INTERVAL=2s")
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		c.await("an open transaction", func() bool { return c.transactingOn(s, 0) })
		s.crash()
		time.Sleep(time.Second)
		if !c.transactingOn(s, 0) {
			t.Fatal("the crash did not leave the transaction open")
		}
		again := c.start(topic, noDrain)
		took := since(func() { c.await("its end", func() bool { return !c.transactingOn(s, 0) }) })
		if took > 3*time.Second {
			t.Errorf("readers waited %v", took)
		}
		c.awaitRead(again)
		again.stop()
		if r := c.verify(again.cfg); r.Ordered != 1 || r.Buffered != 1 {
			t.Errorf("%d ordered, %d buffered", r.Ordered, r.Buffered)
		}
	})
}

// At least once, what the clock releases can be seen before it is committed.
// The move of the watermark is committed first: after a crash it judges still,
// and no record comes out below a watermark that was promised.
func TestKafkaClockMoveIsCommittedFirst(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, record(topic, 0, base, "first"))
		env := []string{"TIDEMARK_DELIVERY=at-least-once", "TIDEMARK_COMMIT_INTERVAL=4s"}
		s := c.start(topic, env...)
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		c.await("the first record out", func() bool { return len(c.contents(topic + ".ordered")[0]) > 0 })
		s.crash()
		c.produce(c.cl, record(topic, 0, base-200, "older"))
		s = c.start(topic, env...)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 2 || r.Late["behind-watermark"] != 1 {
			t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
		}
	})
}

// The same where the clock has freed nothing yet: the move alone is committed. What it
// makes late stays late.
func TestClockMoveThatFreesNothingIsCommitted(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, record(topic, 0, base, "first"))
		env := []string{"TIDEMARK_DELIVERY=at-least-once", "TIDEMARK_COMMIT_INTERVAL=4s", "TIDEMARK_MAX_OUT_OF_ORDERNESS=5s", "TIDEMARK_IDLE_TIMEOUT=1s"}
		s := c.start(topic, env...)
		begins := watermark.Time(base * 1e6).Sub(5*time.Second + 1)
		for moves := 0; moves < 10; {
			time.Sleep(100 * time.Millisecond)
			if w := s.status().Partitions[0].Watermark; w > begins {
				moves++
				if got := c.commits(s.cfg)[0].W; got < w {
					t.Fatalf("W=%d, committed is %d", w, got)
				}
			}
		}
		s.crash()
		if out := len(c.contents(topic + ".ordered")[0]); out > 0 {
			t.Fatalf("%d records are out", out)
		}
		c.produce(c.cl, record(topic, 0, base-4900, "straggler"), record(topic, 0, base+6000, "end"))
		s = c.start(topic, env...)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 3 || r.Ordered != 2 || r.Late["behind-watermark"] != 1 {
			t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
		}
	})
}
