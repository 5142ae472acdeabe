package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/position"
	"github.com/tidemarkhq/tidemark/reorder"
)

// positions returns what looks at the positions of a sidecar's group, and changes them.
func (c *cluster) positions(cfg config.Config) *position.Tool {
	c.t.Helper()
	t := &position.Tool{
		Config: cfg, Client: c.cl, WallClock: time.Now,
		Reporter: fault.NewReporter(slog.New(slog.NewTextHandler(io.Discard, nil))),
	}
	if err := t.Open(c.ctx); err != nil {
		c.t.Fatal(err)
	}
	return t
}

// forgotten destroys the offsets of a group, once it has no members.
func (c *cluster) forgotten(cfg config.Config) {
	c.t.Helper()
	c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
	deleted, err := c.adm.DeleteGroups(c.ctx, cfg.Group)
	if err == nil {
		err = deleted[cfg.Group].Err
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		c.t.Fatal(err)
	}
}

// rebuilt makes the position of a group from its outputs.
func (c *cluster) rebuilt(cfg config.Config, origin int64) *position.Plan {
	c.t.Helper()
	t := c.positions(cfg)
	plan, err := t.PlanRebuild(c.ctx, position.Which{}, origin)
	if err == nil {
		err = t.Apply(c.ctx, plan)
	}
	if err != nil {
		c.t.Fatalf("rebuild: %v", err)
	}
	return plan
}

// sameAsUnbroken compares a sidecar whose position was rebuilt with one that nothing happened
// to. What was from the future is remembered offset by offset, and no longer by the guard's
// steps.
func (c *cluster) sameAsUnbroken(s *sidecar, env ...string) {
	c.t.Helper()
	calm := c.start(s.cfg.Topics[0], beside(s.cfg.Topics[0], env...)...)
	c.awaitRead(calm)
	calm.stop()
	c.sameOutputs(s.cfg, calm.cfg)
	c.sameState(s.cfg, calm.cfg, func(snap *reorder.Snapshot) { snap.Settled = nil })
}

// A sidecar is killed at any request, again and again, and each time the group's offsets
// are destroyed and made again from the outputs. What comes out is what comes out of one
// that nothing happened to, whatever the strategy, repeats and markers among it.
func TestKafkaRebuild(t *testing.T) {
	besideOthers(t)
	for name, env := range map[string][]string{
		"bounded":     {"TIDEMARK_WINDOWS=tumbling:1s"},
		"window-min":  {"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=window-min", "TIDEMARK_WATERMARK_WINDOW=300ms", "TIDEMARK_WATERMARK_LATENESS=100ms"},
		"punctuated":  {"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated"},
		"adaptive":    {"TIDEMARK_WATERMARK=adaptive", "TIDEMARK_TARGET_LATE=0.01"},
		"re-anchored": {"TIDEMARK_REANCHOR_AFTER=2", "TIDEMARK_MAX_OUT_OF_ORDERNESS=15ms"},
	} {
		if testing.Short() && os.Getenv(brokersVar) != "" && name != "bounded" && name != "punctuated" {
			continue // on a real Kafka each kill costs the timeouts of a session and of a transaction
		}
		for seed := range seeds(2, 1) {
			t.Run(fmt.Sprint(name, " seed ", seed), func(t *testing.T) {
				onKafka(t, func(t *testing.T, c *cluster) {
					w := workload{seed: seed, records: 1500, partitions: 3, transactions: true, markers: name == "punctuated", unjudged: name != "bounded", chunk: 40, pause: time.Second}
					if c.fake == nil {
						w.pause = 50 * time.Millisecond // each time, the session has to time out
					}
					topic := c.topic(w.partitions)
					env := append(slices.Clone(env), noDrain, "TIDEMARK_COMMIT_INTERVAL=20ms")
					written := c.writing(topic, &w)
					s, times := c.killedAndRebuilt(topic, seed, written, env...)
					c.awaitRead(s)
					s.stop()
					if times < 3 && c.fake != nil {
						t.Errorf("it was rebuilt only %d times", times)
					}
					c.holds(s.cfg, &w)
					c.sameAsUnbroken(s, env...)
				})
			})
		}
	}
}

// killedAndRebuilt starts a sidecar that crashes at a random request and loses the offsets
// of its group, again and again until the source is written, and returns one that does not.
func (c *cluster) killedAndRebuilt(topic string, seed uint64, written <-chan struct{}, env ...string) (*sidecar, int) {
	c.t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 7))
	for times := 0; ; times++ {
		s := c.start(topic, env...)
		s.link.breakAt(1+rnd.IntN(300), rnd.IntN(2) == 0)
		over := false
		select {
		case <-s.link.broken:
		case <-s.done:
			c.t.Fatalf("the sidecar has ended: %v", s.err)
		case <-written:
			over = true
		}
		s.crash()
		c.forgotten(s.cfg)
		for _, step := range c.rebuilt(s.cfg, -1).Steps {
			c.t.Logf("%s/%d: H %d, %d held: %s", step.Topic, step.Partition, step.Snapshot.Next, step.Snapshot.Count, step.Note)
		}
		if over {
			return c.start(topic, env...), times + 1
		}
	}
}

// The same where a release is so long that its commits cut it: what came out last says how
// far it had come.
func TestKafkaRebuildInsideLongRelease(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		n := 60_000
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
				c.forgotten(s.cfg)
				if made := c.rebuilt(s.cfg, -1).Steps[0].Snapshot; !made.Releasing || made.Count >= snaps[0].Count+1 {
					t.Errorf("%d of %d are held, releasing %v", made.Count, snaps[0].Count, made.Releasing)
				}
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

// Repeats are in .late, or in neither output, and those of an original that came out just
// before the crash may still be owed.
func TestKafkaRebuildAmongRepeats(t *testing.T) {
	besideOthers(t)
	for _, duplicates := range []string{"late", "drop"} {
		for seed := range seeds(6, 1) {
			t.Run(fmt.Sprint(duplicates, " seed ", seed), func(t *testing.T) {
				onKafka(t, func(t *testing.T, c *cluster) {
					topic := c.topic(1)
					written := make(chan struct{})
					c.writers.Go(func() {
						defer close(written)
						c.writeRepeats(topic, seed)
					})
					env := []string{noDrain, "TIDEMARK_COMMIT_INTERVAL=20ms", "TIDEMARK_DEDUP=bytes", "TIDEMARK_DEDUP_REMEMBER=0", "TIDEMARK_DUPLICATES=" + duplicates, "TIDEMARK_MAX_OUT_OF_ORDERNESS=10ms"}
					s, _ := c.killedAndRebuilt(topic, seed, written, env...)
					c.awaitRead(s)
					s.stop()
					if r := c.verify(s.cfg); r.Late["duplicate"]+r.Dropped == 0 || r.Late["behind-watermark"] == 0 {
						t.Errorf("late %v, %d dropped", r.Late, r.Dropped)
					}
					c.sameAsUnbroken(s, env...)
				})
			})
		}
	}
}

// writeRepeats writes few event times, each of several records that repeat one another.
func (c *cluster) writeRepeats(topic string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	base := time.Now().Add(-time.Hour).UnixMilli()
	var batch []*kgo.Record
	for i := range int64(1500) {
		at := base + i/8 - rnd.Int64N(13)
		batch = append(batch, record(topic, 0, at, fmt.Sprint(at, "-", rnd.IntN(3))))
		if rnd.IntN(20) == 0 {
			c.produce(c.cl, batch...)
			batch = nil
			pause := 2000 // ms
			if c.fake == nil {
				pause = 100
			}
			time.Sleep(time.Duration(rnd.IntN(pause)) * time.Millisecond)
		}
	}
	c.produce(c.cl, append(batch, record(topic, 0, base+1000, "end"))...)
}

// Where the clock drains, what comes out depends on when it did. Nothing is lost, nothing
// comes twice, and what the headers promise holds.
func TestKafkaRebuildDrained(t *testing.T) {
	besideOthers(t)
	for seed := range seeds(6, 1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: seed, records: 600, partitions: 2, chunk: 20, pause: 2 * time.Second, drains: true, unjudged: true}
				if c.fake == nil {
					w.pause = 300 * time.Millisecond
				}
				topic := c.topic(w.partitions)
				env := []string{"TIDEMARK_COMMIT_INTERVAL=20ms"}
				s, _ := c.killedAndRebuilt(topic, seed, c.writing(topic, &w), env...)
				c.awaitDrained(s)
				s.stop()
				c.holds(s.cfg, &w)
			})
		})
	}
}

// Records without a time of their own take it from what is held. Where one is held, the
// outputs do not say by which time; else they say enough.
func TestKafkaRebuildAmongRecordsWithoutTime(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		made, refused := 0, 0
		for seed := range uint64(12) {
			topic := c.topic(1)
			rnd := rand.New(rand.NewPCG(seed, 11))
			base := time.Now().Add(-time.Hour).UnixMilli()
			for i := range int64(400) {
				r := record(topic, 0, base+3*i-rnd.Int64N(40), fmt.Sprint(i))
				r.Key = []byte{byte(rnd.IntN(20))}
				if rnd.IntN(10) == 0 {
					r.Headers, r.Value = nil, nil
				}
				c.produce(c.cl, r)
			}
			env := []string{noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=50ms", "TIDEMARK_COMMIT_INTERVAL=20ms", "TIDEMARK_EVENT_TIME=header:event-time,previous"}
			s := c.start(topic, env...)
			c.awaitRead(s)
			s.stop()
			at, text := c.committed(s.cfg)
			c.forgotten(s.cfg)
			tool := c.positions(s.cfg)
			plan, err := tool.PlanRebuild(c.ctx, position.Which{}, -1)
			switch {
			case err == nil:
				made++
				err = tool.Apply(c.ctx, plan)
			case errors.Is(err, position.ErrNotKnown):
				refused++
				lost := kadm.Offsets{}
				lost.Add(kadm.Offset{Topic: topic, At: at, LeaderEpoch: -1, Metadata: text})
				err = c.adm.CommitAllOffsets(c.ctx, s.cfg.Group, lost)
			}
			if err != nil {
				t.Fatal(err)
			}
			s = c.start(topic, env...)
			c.produce(c.cl, record(topic, 0, base+10_000, "end"))
			c.awaitRead(s)
			s.stop()
			if r := c.verify(s.cfg); r.Read != 401 || r.Buffered != 1 {
				t.Errorf("%d read, %d buffered", r.Read, r.Buffered)
			}
		}
		if made == 0 || refused == 0 {
			t.Errorf("%d rebuilt, %d refused", made, refused)
		}
	})
}

// Where a group began elsewhere than at the beginning, or anew, has to be said: what it passed
// over looks like what is held. With that, everything goes on as before.
func TestKafkaRebuildFromOrigin(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		first, second := workload{seed: 5, records: 700, plain: true}, workload{seed: 6, records: 1500, plain: true}
		c.write(topic, &first)
		env := []string{noDrain, "TIDEMARK_START=latest"}
		s := c.start(topic, env...)
		c.await("it to begin", func() bool { return len(c.commits(s.cfg)) > 0 })
		c.write(topic, &second)
		c.awaitRead(s)
		s.stop()
		goesOn := func(origin int64, env ...string) {
			t.Helper()
			at, _ := c.committed(s.cfg)
			if got := c.commits(s.cfg)[0].Origin; got != origin {
				t.Fatalf("it began at %d, want %d", got, origin)
			}
			c.await("the group to be empty", func() bool { return c.members(s.cfg) == 0 })
			plan, err := c.positions(s.cfg).PlanRebuild(c.ctx, position.Which{All: true}, -1)
			if err != nil || plan.Steps[0].Snapshot.Origin != origin {
				t.Errorf("with a commit that says it: %+v, %v", plan, err)
			}
			c.forgotten(s.cfg)
			_, err = c.positions(s.cfg).PlanRebuild(c.ctx, position.Which{}, -1)
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || !errors.Is(err, position.ErrNotKnown) || !strings.Contains(f.Advice, "rebuild --partition "+topic+"/0 --origin N`") {
				t.Errorf("without an origin: %v", err)
			}
			c.rebuilt(s.cfg, origin)
			if got, text := c.committed(s.cfg); got != at {
				t.Errorf("the position is %d %s, was %d", got, text, at)
			}
			s = c.start(topic, env...)
			c.awaitRead(s)
			s.stop()
			c.verify(s.cfg)
		}
		goesOn(700, env...)

		tool := c.positions(s.cfg)
		plan, err := tool.PlanNewEpoch(c.ctx, position.Which{All: true}, position.From{Offset: 900})
		if err == nil {
			err = tool.Apply(c.ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		s = c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		goesOn(900, env...)
		if e := c.commits(s.cfg)[0].Epoch; e != 1 {
			t.Errorf("epoch %d", e)
		}
	})
}
