package proxy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// With nothing remembered, which a restart would forget, the outputs are a
// function of the log.
const forgetful = "TIDEMARK_DEDUP_REMEMBER=0"

// repeating makes n records of a partition that come within the bound. Of three,
// one is sent again soon after, with a header that says so, or none the wiser.
func repeating(topic string, rnd *rand.Rand, partition int32, n int) (rs []*kgo.Record, repeats int64) {
	base := time.Now().Add(-time.Hour).UnixMilli()
	for i := range n {
		if repeated := rnd.IntN(4) == 0 && i > 8; repeated {
			again := *rs[len(rs)-1-rnd.IntN(8)]
			again.Headers = append([]kgo.RecordHeader{{Key: "attempt", Value: []byte("2")}}, again.Headers...)
			rs = append(rs, &again)
			repeats++
			continue
		}
		r := record(topic, partition, base+int64(i/3)-rnd.Int64N(20), fmt.Sprint(i))
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "event-id", Value: fmt.Appendf(nil, "id-%d-%d", partition, i)})
		rs = append(rs, r)
	}
	return append(rs, record(topic, partition, base+10_000, "end")), repeats
}

// Of records that are the same, one comes out in order. The others are late, or
// dropped and counted, and nothing else is.
func TestKafkaDuplicates(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []config.Delivery{config.ExactlyOnce, config.AtLeastOnce} {
		for _, fate := range []config.Duplicates{config.DuplicatesAreLate, config.DropDuplicates} {
			t.Run(fmt.Sprintf("%s %s", delivery, fate), func(t *testing.T) {
				onKafka(t, func(t *testing.T, c *cluster) {
					topic := c.topic(2)
					rnd := rand.New(rand.NewPCG(1, 1))
					var want int64
					for p := range int32(2) {
						rs, repeats := repeating(topic, rnd, p, 500)
						c.produce(c.cl, rs...)
						want += repeats
					}
					s := c.start(topic, noDrain, "TIDEMARK_DEDUP=header:event-id", "TIDEMARK_DUPLICATES="+string(fate), "TIDEMARK_DELIVERY="+string(delivery))
					c.awaitRead(s)
					s.stop()
					r := c.verify(s.cfg)
					late, dropped := r.Late["duplicate"], r.Dropped
					if fate == config.DropDuplicates {
						late, dropped = dropped, late
					}
					if late != want || dropped != 0 || r.Ordered != 1000-want || r.Buffered != 2 || len(r.Late) > 1 {
						t.Errorf("%d duplicates: %d ordered, late %v, %d dropped, %d buffered", want, r.Ordered, r.Late, r.Dropped, r.Buffered)
					}
					if got := s.proc.reporter.Snapshot().Dropped; got != r.Dropped {
						t.Errorf("%d counted as dropped, %d were", got, r.Dropped)
					}
				})
			})
		}
	}
}

// Commits and crashes may come inside the records of one event time. What has
// come out of them is known again, and the bytes are those of a run without.
func TestKafkaCrashAmongRepeats(t *testing.T) {
	besideOthers(t)
	for _, fate := range []string{"late", "drop"} {
		t.Run(fate, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				const n = 30_000 // of each, twice
				base := time.Now().Add(-5 * time.Hour).UnixMilli()
				var rs []*kgo.Record
				for i := range 2 * n {
					rs = append(rs, record(topic, 0, base, fmt.Sprint(i%n)))
					if len(rs) == 5000 {
						c.produce(c.cl, rs...)
						rs = nil
					}
				}
				c.produce(c.cl, record(topic, 0, base+2*time.Hour.Milliseconds(), "end"))
				env := []string{
					noDrain, forgetful, "TIDEMARK_DEDUP=key", "TIDEMARK_DUPLICATES=" + fate,
					"TIDEMARK_COMMIT_INTERVAL=10ms", "TIDEMARK_MAX_OUT_OF_ORDERNESS=20m",
				}
				s := c.start(topic, env...)
				s.link.delay.Store(int64(5 * time.Millisecond))
				cuts := 0
				for !c.read(s.cfg) {
					s.lives()
					if snaps := c.commits(s.cfg); len(snaps) > 0 && snaps[0].Releasing && cuts < 3 {
						if snaps[0].Low != 0 {
							t.Fatalf("committed %d in the midst of a group that begins with 0", snaps[0].Low)
						}
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
				if r := c.verify(s.cfg); r.Ordered != n || r.Late["duplicate"]+r.Dropped != n || r.Buffered != 1 {
					t.Errorf("%d ordered, late %v, %d dropped, %d buffered", r.Ordered, r.Late, r.Dropped, r.Buffered)
				}
				c.sameBeside(s, env...)
			})
		})
	}
}

// The same at any request, among records that come in any order.
func TestKafkaCrashAnywhereAmongRepeats(t *testing.T) {
	besideOthers(t)
	for seed := range seeds(4, 1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(2)
				env := []string{
					noDrain, forgetful, "TIDEMARK_DEDUP=bytes", "TIDEMARK_COMMIT_INTERVAL=20ms",
					"TIDEMARK_DUPLICATES=" + []string{"late", "drop"}[seed%2],
				}
				written := make(chan struct{})
				c.writers.Go(func() {
					defer close(written)
					rnd := rand.New(rand.NewPCG(seed, 1))
					for p := range int32(2) {
						rs, _ := repeating(topic, rnd, p, 1000)
						for _, r := range rs {
							r.Headers = r.Headers[len(r.Headers)-min(2, len(r.Headers)):] // repeats to the byte
						}
						for len(rs) > 0 {
							size := min(1+rnd.IntN(100), len(rs))
							c.produce(c.cl, rs[:size]...)
							rs = rs[size:]
							time.Sleep(60 * time.Millisecond)
						}
					}
				})
				s := c.crashing(topic, seed, written, env...)
				c.awaitRead(s)
				s.stop()
				if r := c.verify(s.cfg); r.Late["duplicate"]+r.Dropped < 100 {
					t.Errorf("late %v, %d dropped", r.Late, r.Dropped)
				}
				c.sameBeside(s, env...)
			})
		})
	}
}

// A repeat behind the watermark is late, and called a duplicate as long as its
// original is remembered. It is never dropped.
func TestKafkaLateRepeat(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		send := func(at int64, value string) { c.produce(c.cl, record(topic, 0, base+at, value)) }
		send(0, "original")
		send(2000, "newer")
		send(0, "original") // remembered
		send(0, "other")
		send(1, "original")
		env := []string{noDrain, "TIDEMARK_DEDUP=key", "TIDEMARK_DUPLICATES=drop"}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		if r := c.verify(s.cfg); r.Late["duplicate"] != 1 || r.Late["behind-watermark"] != 2 || r.Dropped != 0 {
			t.Errorf("late %v, %d dropped", r.Late, r.Dropped)
		}
		send(0, "original") // a restart has forgotten it
		s = c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		if r := c.verify(s.cfg); r.Late["duplicate"] != 1 || r.Late["behind-watermark"] != 3 {
			t.Errorf("after a restart: late %v", r.Late)
		}
	})
}

// Of a duplicate that does not fit into the late topic the partition waits, and
// nothing is forgotten meanwhile.
func TestDuplicateDoesNotFit(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "max.message.bytes=20000000")
		c.create(topic+".ordered", 1, "max.message.bytes=20000000")
		c.create(topic+".late", 1, "max.message.bytes=50000")
		base := time.Now().Add(-time.Hour)
		large, small := noise(60_000), noise(10)
		c.produce(c.cl, timed(topic, base, 1, small), timed(topic, base, 1, large), timed(topic, base, 1, large), timed(topic, base, 1, small), timed(topic, base, 9, nil))
		s := c.start(topic, noDrain, "TIDEMARK_DEDUP=bytes")
		c.await("the commit before it", func() bool {
			snaps := c.commits(s.cfg)
			return len(snaps) == 1 && snaps[0].Releasing && snaps[0].Frontier.Offset == 2
		})
		if snap := c.commits(s.cfg)[0]; snap.Low != 0 || snap.Count != 3 {
			t.Errorf("it stands at %+v", snap)
		}
		c.set(topic+".late", "max.message.bytes", "100000")
		c.await("the partition to go on", func() bool { s.lives(); return c.read(s.cfg) })
		s.stop()
		if r := c.verify(s.cfg); r.Late["duplicate"] != 2 || r.Ordered != 2 || r.Buffered != 1 {
			t.Errorf("%d ordered, late %v, %d buffered", r.Ordered, r.Late, r.Buffered)
		}
	})
}
