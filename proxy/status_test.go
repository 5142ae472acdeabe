package proxy

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// watching looks at the status of sidecars again and again, and checks each time what
// holds at any time. The function that it returns ends that, and returns how often it
// has looked.
func (c *cluster) watching(sidecars ...*sidecar) (done func() int) {
	stop := make(chan struct{})
	var looks atomic.Int64
	var watchers sync.WaitGroup
	for _, s := range sidecars {
		before, disorder := map[string]status.Totals{}, map[string]*status.Histogram{}
		watchers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(170 * time.Millisecond):
				}
				st := s.status()
				if st.Ready || len(st.Partitions) > 0 {
					looks.Add(1)
				}
				for i := range st.Partitions {
					p := &st.Partitions[i]
					name := fmt.Sprint(p.Topic, p.Partition)
					c.accounted(p)
					c.onward(before[name], p.Totals)
					before[name] = p.Totals
				}
				for topic, is := range st.Disorder {
					if was := disorder[topic]; was != nil && (is.Count() < was.Count() || is.Seconds < was.Seconds) {
						c.t.Errorf("the disorder of %s went back from %d to %d records, %g to %g s", topic, was.Count(), is.Count(), was.Seconds, is.Seconds)
					}
					disorder[topic] = is
				}
			}
		})
	}
	return func() int {
		close(stop)
		watchers.Wait()
		return int(looks.Load())
	}
}

// accounted checks that nothing is missing from the account of a partition, and what
// else is true of one at any time.
func (c *cluster) accounted(p *status.Partition) {
	c.t.Helper()
	if off := p.Unaccounted(); off != 0 {
		c.t.Errorf("%s partition %d: %d records are unaccounted for: %+v", p.Topic, p.Partition, off, p.Totals)
	}
	if n := p.Read - p.Untimed - p.Late[reorder.Future] - p.Late[reorder.InvalidTime]; int64(p.Disorder.Count()) != n {
		c.t.Errorf("%s partition %d: the disorder is that of %d records, %d have been judged by it", p.Topic, p.Partition, p.Disorder.Count(), n)
	}
	if p.Committed > p.Next || p.Low > p.Next || p.Records > p.Owed || p.Hold.Words == "" || p.State == "" || p.Backlog() < -1 {
		c.t.Errorf("makes no sense: %+v", p)
	}
	held := int64(0)
	for _, n := range p.Density.Cells {
		held += n
	}
	if held != int64(p.Records) && !c.looks { // the simulation has repeats, which are set aside
		c.t.Errorf("%s partition %d: %d are spread over time, and %d are held", p.Topic, p.Partition, held, p.Records)
	}
}

// onward checks that no counter went back.
func (c *cluster) onward(was, is status.Totals) {
	c.t.Helper()
	back := is.Read < was.Read || is.Ordered < was.Ordered || is.Dropped < was.Dropped || is.Lost < was.Lost
	for v := range is.Late {
		back = back || is.Late[v] < was.Late[v]
	}
	if back {
		c.t.Errorf("a counter went back: from %+v to %+v", was, is)
	}
}

// sum returns the tally of all partitions together.
func sum(st *status.Status) (all status.Totals) {
	for _, p := range st.Partitions {
		all.Read += p.Totals.Read
		all.Carried += p.Carried
		all.Ordered += p.Ordered
		all.Dropped += p.Dropped
		all.Lost += p.Totals.Lost
		all.Held += p.Held
		for v, n := range p.Late {
			all.Late[v] += n
		}
	}
	return all
}

// Nothing is missing from the account, at any look, whatever is undone meanwhile; and
// in the end it is what the outputs hold.
func TestStatusAccounts(t *testing.T) {
	besideOthers(t)
	for _, mode := range []struct {
		name string
		env  []string
		key  kmsg.Key
	}{
		{"calm", nil, kmsg.Key(-1)},
		{"refused", nil, kmsg.Produce},
		{"not committed", nil, kmsg.TxnOffsetCommit},
		{"at least once", []string{"TIDEMARK_DELIVERY=at-least-once"}, kmsg.Produce},
		{"short of memory", []string{"TIDEMARK_MEMORY=1MiB", "TIDEMARK_MAX_OUT_OF_ORDERNESS=1m"}, kmsg.Produce},
		{"seldom", []string{"TIDEMARK_COMMIT_INTERVAL=3s"}, kmsg.Key(-1)},
	} {
		t.Run(mode.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				w := workload{seed: 41, records: 4000, partitions: 3, pause: 40 * time.Millisecond, payload: 500, unjudged: true}
				topic := c.topic(w.partitions)
				env := append([]string{noDrain}, mode.env...)
				s := c.start(topic, env...)
				done := c.watching(s)
				written := c.writing(topic, &w)
				faults := 0
				for range 5 {
					time.Sleep(300 * time.Millisecond)
					if mode.key >= 0 {
						fault := kfake.Fault{Keys: []kmsg.Key{mode.key}, Err: kerr.InvalidRecord}
						if mode.key == kmsg.Produce {
							fault.Topic = s.cfg.OrderedTopic(topic)
						}
						h := c.fake.Fault(fault)
						c.await("a fault", func() bool { return h.Hits() > 0 || c.read(s.cfg) })
						faults += int(h.Hits())
						h.Remove()
					}
				}
				<-written
				c.awaitRead(s)
				time.Sleep(2 * time.Second)
				st := s.status()
				s.stop()
				if looks := done(); looks < 5 {
					t.Errorf("looked %d times", looks)
				}
				if mode.key >= 0 && (faults == 0 || st.Counts.Aborts+st.Counts.Sessions < 2) {
					t.Errorf("%d faults, %d aborts, %d sessions", faults, st.Counts.Aborts, st.Counts.Sessions)
				}
				if s.cfg.Delivery == config.ExactlyOnce { // else some came out twice
					c.agrees(st, s)
				}
				if !st.Ready || st.Counts.Commits == 0 || st.Latency.Count() != uint64(sum(st).Ordered) {
					t.Errorf("ready %v (%s), %d commits, %d latencies of %d records", st.Ready, st.NotReady, st.Counts.Commits, st.Latency.Count(), sum(st).Ordered)
				}
				if short := mode.name == "short of memory"; st.ShortOfMemory != short || short != (sum(st).Late[reorder.Overflow] > 0) {
					t.Errorf("short of memory: %v, %+v", st.ShortOfMemory, sum(st))
				}
			})
		})
	}
}

// agrees checks the account against what is in the topics.
func (c *cluster) agrees(st *status.Status, s *sidecar) {
	c.t.Helper()
	r, sum := c.verify(s.cfg), sum(st)
	got := []any{sum.Read + sum.Carried, sum.Ordered, sum.Held}
	want := []any{int64(r.Read), int64(r.Ordered), int64(r.Buffered)}
	for v := reorder.BehindWatermark; v <= reorder.Duplicate; v++ {
		got, want = append(got, sum.Late[v]), append(want, int64(r.Late[v.String()]))
	}
	if !slices.Equal(got, want) {
		c.t.Errorf("the status says %v, the topics %v (read, in order, held, late by reason)", got, want)
	}
}

// What is held when a partition is taken up was read by another, and what is held when it
// is given up will be put out by another; either is in the account.
func TestStatusAccountsAcrossOwners(t *testing.T) {
	severalMembers(t)
	onFake(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 42, records: 6000, partitions: 4, pause: 60 * time.Millisecond}
		topic := c.topic(w.partitions)
		a := c.start(topic, noDrain)
		written := c.writing(topic, &w)
		c.await("a to have all", func() bool { return len(c.owned(a)) == 4 })
		doneA := c.watching(a) // also while it gives up half of much
		time.Sleep(3 * time.Second)
		b := c.start(topic, noDrain, instance("b"))
		doneB := c.watching(b)
		c.await("each to have half", func() bool { return len(c.owned(a)) == 2 && len(c.owned(b)) == 2 })
		// Within a second all is worked on, whatever had to be read again, and a status is
		// not older than publishEvery.
		time.Sleep(time.Second + status.PublishEvery)
		if st := a.status(); len(st.Partitions) != 2 || !st.Ready {
			t.Errorf("a has two partitions and says: %d, %s", len(st.Partitions), st.NotReady)
		}
		b.stop()
		c.await("a to have all again", func() bool { return len(c.owned(a)) == 4 })
		<-written
		c.awaitRead(a)
		time.Sleep(2 * time.Second)
		if st := a.status(); len(st.Partitions) != 4 || sum(st).Read == 0 {
			t.Errorf("%+v", sum(st))
		}
		doneA()
		doneB()
		a.stop()
		again := c.start(topic, noDrain)
		c.await("it to be ready", func() bool { return again.status().Ready })
		time.Sleep(time.Second)
		if sum := sum(again.status()); sum.Carried != sum.Held || sum.Held == 0 || sum.Read != 0 {
			t.Errorf("nothing is new, and the account says %+v", sum)
		}
		again.stop()
	})
}

// A session that begins anew has a clock that begins anew; the rates go on all the same.
func TestRatesOutliveSessions(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.awaitRead(s)
		for range 60 {
			s.status()
			time.Sleep(time.Second)
		}
		w := workload{seed: 43, records: 4000, pause: 100 * time.Millisecond, plain: true}
		written := c.writing(topic, &w)
		time.Sleep(time.Second)
		if err := group.Fence(c.ctx, c.cl, s.cfg.TransactionalID(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		c.await("another session", func() bool { return s.status().Counts.Sessions == 2 && s.of(topic, 0) != nil })
		was := s.of(topic, 0)
		time.Sleep(2 * time.Second)
		is := s.of(topic, 0)
		if is.Ordered < was.Ordered+100 || is.OrderedRate < 50 || is.OrderedRate == was.OrderedRate {
			t.Errorf("from %d records to %d within 2 s: %g a second, and %g before", was.Ordered, is.Ordered, is.OrderedRate, was.OrderedRate)
		}
		<-written
		s.stop()
	})
}

// A status that nobody asks for is not made; who asks gets one not older than a second,
// also when nothing happens; and all who ask at once get the same.
func TestStatusIsMadeWhenAsked(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		s := c.start(topic)
		c.awaitRead(s)
		time.Sleep(10 * time.Second)
		if s.proc.publisher.Watched() {
			t.Error("somebody has looked")
		}
		for range 3 {
			asked := time.Now()
			st := s.status()
			if age := time.Since(st.At); age > time.Second || time.Since(asked) > 100*time.Millisecond {
				t.Errorf("after %v there was a status %v old", time.Since(asked), age)
			}
			time.Sleep(300 * time.Millisecond)
			if again := s.status(); !again.At.Equal(st.At) {
				t.Error("another was made within the second")
			}
			time.Sleep(7 * time.Second)
		}
		for _, p := range s.status().Partitions {
			if p.End != 0 || p.Backlog() != 0 || p.State != status.Idle || p.Hold.Words != "nothing is held" {
				t.Errorf("of an empty partition: %+v", p)
			}
		}
		s.stop()
	})
}

// Who looks all the time wakes the loop once a second.
func TestLooksAreRare(t *testing.T) {
	s := shownSession(1, 10)
	wakes := 0
	s.publisher.Open(func() { wakes++; s.answer() })
	for range 100 {
		if st := s.publisher.Status(t.Context()); len(st.Partitions) != 1 {
			t.Fatalf("%+v", st)
		}
	}
	if wakes > 2 { // a second may pass
		t.Errorf("the loop was woken %d times", wakes)
	}
}

// What the next release waits for is said in words, and when it will be.
func TestHoldTellsWhatIsWaitedFor(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=2s", "TIDEMARK_IDLE_TIMEOUT=3s")
		c.awaitRead(s)
		base := time.Now().Add(-time.Hour)
		c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 1, nil))
		time.Sleep(1500 * time.Millisecond)
		p := s.of(topic, 0)
		due := time.Until(p.Hold.At)
		if p.State != status.Active || !strings.Contains(p.Hold.Words, "idle timeout of 3.0 s") || p.Hold.Lacks.Round(time.Second) != time.Second ||
			p.Hold.Event != watermark.Time(base.UnixMilli())*1e6 || due < 2*time.Second || due > 3500*time.Millisecond {
			t.Errorf("due in %v: %+v", due, p.Hold)
		}
		time.Sleep(2100 * time.Millisecond)
		if p := s.of(topic, 0); p.State != status.Draining || !strings.Contains(p.Hold.Words, "by the clock") {
			t.Errorf("%s: %+v", p.State, p.Hold)
		}
		c.awaitDrained(s)
		time.Sleep(2 * time.Second)
		if p := s.of(topic, 0); p.State != status.Idle || p.Ordered != 2 || p.Records != 0 || p.Committed != p.End || p.Disorder.Count() != 2 {
			t.Errorf("all is out: %+v", p)
		}
		s.stop()
	})
}

// A partition that stands still is shown, with its reason, and the rest is ready.
func TestStatusOfStandstill(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		outputs := []string{topic + ".ordered", topic + ".late"}
		for _, out := range outputs {
			c.create(out, 1)
		}
		c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		s := c.start(topic)
		c.await("the first commit of both", func() bool { return len(c.commits(s.cfg)) == 2 })
		time.Sleep(time.Second)
		st := s.status()
		if st.Ready || st.NotReady != "1 partitions are without a partition in the outputs" || len(st.Partitions) != 2 {
			t.Errorf("ready %v: %s, %d partitions", st.Ready, st.NotReady, len(st.Partitions))
		}
		if p := st.Partitions[1]; p.State != status.WaitingForOutputs || !strings.Contains(p.Hold.Words, "kafka-topics") || !strings.Contains(st.Reason, p.Hold.Words) || st.State != status.Degraded {
			t.Errorf("%s: %s: %+v", st.State, st.Reason, p)
		}
		base := time.Now().UnixMilli()
		c.produce(c.cl, record(topic, 1, base, "a"), record(topic, 1, base, "b"))
		c.await("what has come since to be seen", func() bool { return s.of(topic, 1).Backlog() == 2 })
		s.stop()
	})
}

// What may not be read yet is seen, also where nothing is held and nothing is read.
func TestStatusOfOpenTransaction(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.awaitRead(s)
		s.status()
		time.Sleep(10 * time.Second)
		tx := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("open-"+topic))
		defer tx.Close()
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		base := time.Now().UnixMilli()
		c.produce(tx, record(topic, 0, base, "a"), record(topic, 0, base, "b"))
		c.await("the transaction to be seen", func() bool {
			p := s.of(topic, 0)
			return p.Backlog() == 2 && p.Stable == 0 && p.State == status.Active && strings.Contains(p.Hold.Words, "transaction")
		})
		c.wrote(tx.EndTransaction(c.ctx, kgo.TryCommit))
		c.awaitDrained(s)
		time.Sleep(time.Second)
		if p := s.of(topic, 0); p.Backlog() != 0 || p.Stable != p.End || p.Ordered != 2 {
			t.Errorf("it has ended: %+v", p)
		}
		s.stop()
	})
}

// The brokers are probed once somebody looks; while they are away that is said, and the
// process shows what it knew last.
func TestProbes(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.awaitRead(s)
		time.Sleep(time.Minute)
		looked := time.Now()
		if st := s.status(); st.Probes.Metadata.At.Before(looked) || st.State != status.Healthy {
			t.Errorf("at the first look it is %s (%s), and the brokers were probed %v before", st.State, st.Reason, looked.Sub(st.Probes.Metadata.At))
		}
		fault := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups}, Err: kerr.GroupAuthorizationFailed, Count: -1})
		c.await("it to be degraded", func() bool { return s.status().State == status.Degraded })
		if st := s.status(); !strings.Contains(st.Reason, "coordinator") || !st.Ready {
			t.Errorf("%s, %v", st.Reason, st.Ready)
		}
		fault.Remove()
		c.await("it to be healthy again", func() bool { return s.status().State == status.Healthy })
		young := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups}, Err: kerr.GroupIDNotFound, Count: -1})
		c.await("two probes before anybody has joined", func() bool { return young.Hits() >= 2 })
		if st := s.status(); st.State != status.Healthy {
			t.Errorf("that nobody has joined is an answer: %s, %s", st.State, st.Reason)
		}
		young.Remove()
		s.link.cut()
		c.await("it to be unreachable", func() bool { return s.status().State == status.Unreachable })
		s.crash()
	})
}

// shownSession is a session that holds so many records in each of its partitions.
func shownSession(partitions, held int) *session {
	cfg, err := config.Load([]string{"TIDEMARK_TOPICS=raw", "TIDEMARK_MEMORY=4GiB"})
	if err != nil {
		panic(err)
	}
	s := newSession(cfg, nil, map[string]preflight.Topic{}, newProcess(slog.New(slog.DiscardHandler)))
	rnd := rand.New(rand.NewPCG(3, 0))
	for n := range partitions {
		p := s.working(emit.Source{Topic: "raw", Partition: int32(n)}, reorder.Fresh(0, 0, 0), 0)
		s.install(p)
		for i := range int64(held) {
			at := watermark.Time(rnd.Int64N(int64(4 * time.Second)))
			p.state.Step(reorder.Record{Offset: i, Time: at, Size: 1}, 0)
		}
	}
	return s
}

// BenchmarkStatus: what a look costs the loop with a thousand partitions, and with a
// million records held.
func BenchmarkStatus(b *testing.B) {
	for _, size := range []struct{ partitions, held int }{{1, 1_000_000}, {1000, 1000}, {1, 0}} {
		b.Run(fmt.Sprintf("%d,%d", size.partitions, size.held), func(b *testing.B) {
			s := shownSession(size.partitions, size.held)
			b.ReportAllocs()
			for b.Loop() {
				s.status()
			}
		})
	}
}
