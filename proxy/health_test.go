package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
)

// The first look at a process that has nothing wrong with it says so, or that it starts;
// it is never a fault that nobody has looked before.
func TestFirstLookIsNoFault(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(3)
		s := c.start(topic)
		for range 200 {
			if st := s.status(); st.State != status.Healthy && st.State != status.Starting || st.State == status.Healthy && !st.Ready {
				t.Fatalf("while it starts it is %s: %s", st.State, st.Reason)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if st := s.status(); st.State != status.Healthy {
			t.Errorf("%s: %s", st.State, st.Reason)
		}
		s.stop()
	})
}

// Records without a usable event time, and too many late ones, are a reason, which goes away
// a minute after the cause has.
func TestLatenessIsAReason(t *testing.T) {
	besideOthers(t)
	for _, x := range []struct {
		name  string
		env   []string
		bad   func(topic string, base time.Time, i int) *kgo.Record
		worst reorder.Verdict
		want  string
	}{
		{"no event times", nil, func(topic string, base time.Time, i int) *kgo.Record {
			r := timed(topic, base, i, nil)
			r.Headers = []kgo.RecordHeader{{Key: "event-time", Value: []byte("yesterday")}}
			return r
		}, reorder.InvalidTime, "none of the last"},
		{"mostly late", nil, func(topic string, base time.Time, i int) *kgo.Record {
			if i%20 == 0 {
				return timed(topic, base, i, nil)
			}
			return timed(topic, base.Add(-time.Hour), i, nil)
		}, reorder.BehindWatermark, "of the last"},
		{"from the future", nil, func(topic string, base time.Time, i int) *kgo.Record {
			if i%2 == 0 {
				return timed(topic, base, i, nil)
			}
			return timed(topic, base.Add(48*time.Hour), i, nil)
		}, reorder.Future, "mostly future"},
		{"limit raised", []string{"TIDEMARK_LATE_LIMIT=0.6"}, func(topic string, base time.Time, i int) *kgo.Record {
			if i%2 == 0 {
				return timed(topic, base, i, nil)
			}
			return timed(topic, base.Add(-time.Hour), i, nil)
		}, reorder.BehindWatermark, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.start(topic, x.env...)
				c.awaitRead(s)
				base := time.Now().Add(-time.Hour)
				for i := range 100 {
					c.produce(c.cl, x.bad(topic, base, i))
					time.Sleep(100 * time.Millisecond)
				}
				c.awaitRead(s)
				time.Sleep(2 * time.Second)
				st := s.status()
				if p := s.of(topic, 0); p.Late[x.worst] < 40 {
					t.Fatalf("late are %v", p.Late)
				}
				if x.want == "" {
					if st.State != status.Healthy {
						t.Errorf("less than the limit is late, and it is %s: %s", st.State, st.Reason)
					}
				} else if st.State != status.Degraded || len(st.Reasons) != 1 || !strings.Contains(st.Reason, topic+" partition 0: ") || !strings.Contains(st.Reason, x.want) || !st.Ready {
					t.Errorf("%s, ready %v: %q", st.State, st.Ready, st.Reasons)
				}
				for i := range 1000 {
					c.produce(c.cl, timed(topic, base, 200+i, nil))
					time.Sleep(100 * time.Millisecond)
				}
				c.awaitRead(s)
				time.Sleep(time.Second)
				if st := s.status(); st.State != status.Healthy {
					t.Errorf("the last minutes were in order, and it is %s: %s", st.State, st.Reason)
				}
				s.stop()
			})
		})
	}
}

// A partition of which nothing comes out is a reason, with what it waits for and the setting
// that lets it wait, a minute after records should have come out; and until they do.
func TestNothingComesOut(t *testing.T) {
	besideOthers(t)
	for _, x := range []struct {
		name string
		env  []string
		come func(topic string, base time.Time, i int) *kgo.Record // second by second
		free func(topic string, base time.Time, i int) *kgo.Record // lets them come out
		want []string
	}{
		{
			"no idle timeout, and the source has stopped",
			[]string{"TIDEMARK_IDLE_TIMEOUT=0"},
			func(topic string, base time.Time, i int) *kgo.Record {
				if i > 0 {
					return nil
				}
				return timed(topic, base, i, nil)
			},
			func(topic string, base time.Time, i int) *kgo.Record { return timed(topic, base, i, nil) },
			[]string{"1 records are held", "all there are have been read, the last ones 1 min", "TIDEMARK_IDLE_TIMEOUT=0", "leave TIDEMARK_IDLE_TIMEOUT=0 out"},
		},
		{
			"punctuated, and no record has a watermark",
			[]string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated", "TIDEMARK_WATERMARK_HEADER=wm", noDrain},
			func(topic string, base time.Time, i int) *kgo.Record { return timed(topic, base, i, nil) },
			func(topic string, base time.Time, i int) *kgo.Record {
				r := timed(topic, base, i, nil)
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: "wm", Value: fmt.Append(nil, base.Add(10*time.Minute).UnixMilli())})
				return r
			},
			[]string{"records are held", "waits for a record with a watermark", `header "wm" (TIDEMARK_WATERMARK_HEADER=wm:unix-ms)`, "check the name of the header"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.start(topic, x.env...)
				c.awaitRead(s)
				base := time.Now().Add(-30 * time.Minute)
				for i := range 180 {
					if r := x.come(topic, base, i); r != nil {
						c.produce(c.cl, r)
					}
					time.Sleep(time.Second)
					st := s.status()
					if p := &st.Partitions[0]; i > 6 && !p.Hold.At.IsZero() {
						t.Fatalf("after %d s it is due at %v: %s", i, p.Hold.At, p.Hold.Words)
					}
					switch {
					case i < 55 && st.State != status.Healthy:
						t.Fatalf("after %d s it is %s: %s", i, st.State, st.Reason)
					case i >= 70 && (st.State != status.Degraded || len(st.Reasons) != 1 || i < 100 && !says(st.Reason+"; "+st.Hints[0], append(x.want, topic+" partition 0: nothing has come out for 1 min")...)):
						t.Fatalf("after %d s it is %s: %q", i, st.State, st.Reasons)
					}
				}
				c.produce(c.cl, x.free(topic, base, 200))
				time.Sleep(3 * time.Second)
				if st := s.status(); st.State != status.Healthy {
					t.Errorf("the next has come, and it is %s: %s", st.State, st.Reason)
				}
				s.stop()
			})
		})
	}
}

// A partition of which nothing is read though there is something is a reason, with what is
// known of why, whether something is held or not; and so is a leader that does not say what
// there is. Both are over when it is.
func TestNothingIsRead(t *testing.T) {
	besideOthers(t)
	for _, x := range []struct {
		name string
		keys []kmsg.Key
		soon int // seconds after which it is told, at the latest
		want []string
	}{
		{"fetches are refused", []kmsg.Key{kmsg.Fetch}, 70, []string{"nothing has been read for 1 min", "1 offsets are to be read"}},
		{"the leader answers nothing", []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets}, 15, []string{"its leader has not said for", "where the log ends", "NOT_LEADER"}},
	} {
		for _, held := range []int{0, 1} {
			t.Run(fmt.Sprint(x.name, ", held are ", held), func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(1)
					s := c.start(topic, "TIDEMARK_IDLE_TIMEOUT=5m")
					c.awaitRead(s)
					base := time.Now().Add(-time.Hour)
					for i := range held {
						c.produce(c.cl, timed(topic, base, i, nil))
					}
					c.awaitRead(s)
					h := c.fake.Fault(kfake.Fault{Keys: x.keys, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1})
					c.produce(c.cl, timed(topic, base, 9, nil))
					for i := range 100 {
						time.Sleep(time.Second)
						st := s.status()
						if i >= x.soon && (st.State != status.Degraded || len(st.Reasons) != 1 || !says(st.Reason, append(x.want, topic+" partition 0: ")...) || !st.Ready) {
							t.Fatalf("after %d s it is %s: %q", i, st.State, st.Reasons)
						}
						if i < 9 && st.State != status.Healthy {
							t.Fatalf("after %d s it is %s: %q", i, st.State, st.Reasons)
						}
						if p := &st.Partitions[0]; i >= 10 && !p.Hold.At.IsZero() {
							t.Fatalf("after %d s it is due at %v: %s", i, p.Hold.At, p.Hold.Words)
						}
					}
					h.Remove()
					time.Sleep(10 * time.Second)
					if st := s.status(); st.State != status.Healthy {
						t.Errorf("it is over, and it is %s: %q", st.State, st.Reasons)
					}
					s.stop()
				})
			})
		}
	}
}

// While brokers are away, and while a session begins anew, what is held and what was late
// stays on show, nothing is due, and the reason is said once.
func TestBrokersAwayIsShown(t *testing.T) {
	besideOthers(t)
	t.Run("refused", func(t *testing.T) { brokersAway(t, (*link).leave, (*link).comeBack) })
	t.Run("silent", func(t *testing.T) { brokersAway(t, (*link).freeze, (*link).melt) })
}

func brokersAway(t *testing.T, leave, comeBack func(*link)) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		s := c.start(topic, "TIDEMARK_IDLE_TIMEOUT=1h")
		c.awaitRead(s)
		base := time.Now().Add(-time.Hour)
		for i := range 10 {
			c.produce(c.cl, timed(topic, base, i, nil))
		}
		c.produce(c.cl, timed(topic, base.Add(-time.Hour), 0, nil))
		c.awaitRead(s)
		time.Sleep(2 * time.Second)
		was := sum(s.status())
		if was.Held == 0 || was.Late[reorder.BehindWatermark] == 0 {
			t.Fatalf("%+v", was)
		}
		leave(s.link)
		for i := range 300 {
			time.Sleep(time.Second)
			st := s.status()
			if is := sum(st); is.Held != was.Held || is.Late != was.Late || len(st.Partitions) != 2 {
				t.Fatalf("after %d s %+v is %+v, in session %d: %s", i, was, is, st.Counts.Sessions, st.Reason)
			}
			if i < 15 {
				continue
			}
			if st.State != status.Unreachable && (st.State != status.Degraded || i > 20) || len(st.Reasons) > 2 || strings.Count(st.Reason, "no answer within") > 1 || strings.Count(st.Reason, "connection refused") > 1 {
				t.Errorf("after %d s it is %s: %s", i, st.State, st.Reason)
			}
			for _, p := range st.Partitions {
				if !p.Hold.At.IsZero() || p.Hold.Words == "" || st.State == status.Unreachable && !strings.Contains(p.Hold.Words, "the brokers") {
					t.Errorf("after %d s the next record is due at %v: %s", i, p.Hold.At, p.Hold.Words)
				}
				if p.OrderedRate != 0 || p.LateRate != 0 || st.State == status.Unreachable && p.Backlog() != -1 {
					t.Errorf("after %d s it puts out %g and %g a second, and %d are to be read", i, p.OrderedRate, p.LateRate, p.Backlog())
				}
			}
		}
		comeBack(s.link)
		time.Sleep(15 * time.Second)
		if st := s.status(); st.State != status.Healthy {
			t.Errorf("the brokers are back, and it is %s: %s", st.State, st.Reason)
		}
		s.stop()
	})
}

// When the next record is said to be due, it comes out: while records come, and when none do.
func TestDueIsTrue(t *testing.T) {
	besideOthers(t)
	for _, every := range []time.Duration{200 * time.Millisecond, 700 * time.Millisecond, 3 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=2s", "TIDEMARK_IDLE_TIMEOUT=10s")
				c.awaitRead(s)
				rnd := rand.New(rand.NewPCG(7, 7))
				var over atomic.Int64 // when the last record has come; 0: not yet
				go func() {
					for range int(time.Minute / every) {
						c.produce(c.cl, record(topic, 0, time.Now().Add(-time.Duration(rnd.IntN(500))*time.Millisecond).UnixMilli(), "r"))
						time.Sleep(every)
					}
					over.Store(time.Now().UnixNano())
				}()
				said, quiet := 0, 0
				for range 150 {
					time.Sleep(517 * time.Millisecond)
					st := s.status()
					h, ended := st.Partitions[0].Hold, over.Load()
					silent := ended > 0 && st.At.UnixNano()-ended > int64(time.Second)
					if h.At.IsZero() {
						continue
					}
					most := 3 * time.Second // the bound, and some
					if silent || every > time.Second || ended > 0 {
						most += 10 * time.Second // and the idle timeout
					}
					if h.At.Sub(st.At) > most {
						t.Fatalf("it is due only at %v: %s", h.At, h.Words)
					}
					// What is supposed is that records go on coming, or that none does.
					soon := time.Second
					if !silent {
						soon += every
					}
					time.Sleep(time.Until(h.At) + soon)
					if !silent && over.Load() > 0 {
						continue
					}
					if said++; silent {
						quiet++
					}
					if p := s.of(topic, 0); p.Watermark < h.Event {
						t.Fatalf("due at %v, and %v later it is not out: %s", h.At, soon, h.Words)
					}
				}
				if said < 5 || quiet < 1 {
					t.Errorf("it was said %d times, %d times in a silence", said, quiet)
				}
				s.stop()
			})
		})
	}
}

// A fetch that was answered before the end of the log was told is no open transaction.
func TestFetchOlderThanTheEnd(t *testing.T) {
	end := group.Extent{High: 100, Stable: 100}
	end.Fetched(95, 95)
	p := status.Partition{Topic: "raw", State: status.Active, End: end.High, Stable: end.Stable}
	p.Next, p.Density.From = 95, 0
	if h := status.HoldOf(config.Config{}, &p, status.Others{}, time.Now()); strings.Contains(h.Words, "transaction") {
		t.Error(h.Words)
	}
}

// A transaction that a producer leaves open before what we read is told with what holds it,
// and nothing is due meanwhile.
func TestKafkaOpenTransactionOnSource(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.awaitRead(s)
		base := time.Now().Add(-time.Hour)
		id := "upstream-" + topic
		tx := c.leaveOpen(id, timed(topic, base, 0, nil))
		defer tx.Close()
		c.produce(c.cl, timed(topic, base, 1, nil), timed(topic, base, 2, nil))
		c.await("it to be told", func() bool { return len(s.voice.heard("an open transaction holds up a source partition")) > 0 })
		line := s.voice.heard("an open transaction holds up a source partition")[0]
		if !says(line, "topic="+topic, "partition=0", "first_offset=0", "transactional_id="+id, "producer_id=", "since=", "kafka-transactions", "describe --transactional-id "+id) {
			t.Error(line)
		}
		c.await("it to be a reason", func() bool {
			st := s.status()
			return st.State == status.Degraded && says(st.Reason, fmt.Sprintf("a producer (transactional id %q) holds %s partition 0 open since 20", id, topic), "3 offsets are behind it")
		})
		if p := s.of(topic, 0); !says(p.Hold.Words, "cannot be read", id) || !p.Hold.At.IsZero() {
			t.Errorf("%+v", p.Hold)
		}
		if n := len(s.status().Reasons); n != 1 {
			t.Errorf("%q", s.status().Reasons)
		}
		c.wrote(tx.EndTransaction(c.ctx, kgo.TryCommit))
		c.await("its end to be told", func() bool { return len(s.voice.heard("the open transaction has ended")) == 1 })
		if told := s.voice.heard("the open transaction has ended"); !says(told[0], "transactional_id="+id, "waited=") {
			t.Errorf("%q", told)
		}
		c.awaitDrained(s)
		c.await("it to be healthy", func() bool { return s.status().State == status.Healthy })
		s.stop()
	})
}

// The same on an output, of which readers see nothing, although we put out what comes.
func TestKafkaOpenTransactionOnOutput(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.start(topic, "TIDEMARK_DELIVERY="+delivery)
				c.awaitRead(s)
				id := "stranger-" + topic
				tx := c.leaveOpen(id, &kgo.Record{Topic: s.cfg.OrderedTopic(topic), Value: []byte("v")})
				defer tx.Close()
				w := workload{seed: 44, records: 300, pause: 100 * time.Millisecond, plain: true}
				written := c.writing(topic, &w)
				const told = "another program's open transaction holds up readers of an output"
				c.await("it to be told", func() bool { return len(s.voice.heard(told)) > 0 })
				if line := s.voice.heard(told)[0]; !says(line, "topic="+topic+".ordered", "partition=0", "first_offset=", "transactional_id="+id, "since=", "kafka-transactions") {
					t.Error(line)
				}
				st := s.status()
				if st.State != status.Degraded || !st.Ready || !says(st.Reasons[0], fmt.Sprintf("another program (transactional id %q) holds %s.ordered partition 0 open since 20", id, topic)) {
					t.Errorf("%s, ready %v: %q", st.State, st.Ready, st.Reasons)
				}
				if p := s.of(topic, 0); !p.Hold.At.IsZero() || !says(p.Hold.Words, "do not see what comes out", id) {
					t.Errorf("%+v", p.Hold)
				}
				<-written
				c.wrote(tx.EndTransaction(c.ctx, kgo.TryAbort))
				c.await("it not to be a reason", func() bool { return len(s.status().Blocked) == 0 })
				s.stop()
			})
		})
	}
}

// Upstream may write in transactions of many seconds, one after the other, from many producers,
// as Flink does. That is told now and then, and not for each.
func TestOpenTransactionsOneAfterTheOther(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		const producers = 8
		topic := c.topic(producers)
		s := c.start(topic)
		c.awaitRead(s)
		base := time.Now().Add(-time.Hour)
		var txs []*kgo.Client
		put := func(n int) {
			r := timed(topic, base, n, nil)
			r.Partition = int32(n)
			c.produce(txs[n], r)
		}
		for n := range producers {
			txs = append(txs, c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(fmt.Sprint("flink-", n)), kgo.TransactionTimeout(10*time.Minute)))
			defer txs[n].Close()
		}
		for range 10 { // minutes
			for n, tx := range txs {
				if err := tx.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				put(n)
			}
			time.Sleep(45 * time.Second)
			for _, tx := range txs {
				c.wrote(tx.EndTransaction(c.ctx, kgo.TryCommit))
			}
			time.Sleep(15 * time.Second)
		}
		told, ended := s.voice.heard("an open transaction holds up a source partition"), s.voice.heard("the open transaction has ended")
		if n := len(told); n < 10 || n > 10*2*3 {
			t.Errorf("in 10 minutes it has told of open transactions %d times", n)
		}
		if n := len(ended); n < 10 || n > 10*2 {
			t.Errorf("and of their ends %d times", n)
		}
		if len(told) > 2 && !says(told[2], "others=5") {
			t.Error(told[2])
		}
		s.stop()
	})
}

// leaveOpen writes records in a transaction of somebody else, and leaves it open.
func (c *cluster) leaveOpen(id string, records ...*kgo.Record) *kgo.Client {
	c.t.Helper()
	tx := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute))
	if err := tx.BeginTransaction(); err != nil {
		c.t.Fatal(err)
	}
	c.produce(tx, records...)
	return tx
}

// Where brokers do not say whose transaction it is, that is said, and nothing is guessed.
func TestOpenTransactionOfUnknown(t *testing.T) {
	besideOthers(t)
	for _, x := range []struct {
		name string
		key  kmsg.Key
		err  *kerr.Error
		want string
	}{
		{"the producers may not be seen", kmsg.DescribeProducers, kerr.TopicAuthorizationFailed, "a producer holds"},
		{"the transactions may not be seen", kmsg.ListTransactions, kerr.TransactionalIDAuthorizationFailed, "a producer (producer id "},
	} {
		t.Run(x.name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.start(topic)
				c.awaitRead(s)
				c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{x.key}, Err: x.err, Count: -1})
				tx := c.leaveOpen("upstream-"+topic, timed(topic, time.Now().Add(-time.Hour), 0, nil))
				defer tx.Close()
				time.Sleep(time.Minute)
				if st := s.status(); st.State != status.Degraded || !says(st.Reason, x.want, "cannot see whose it is") || strings.Contains(st.Reason, "upstream-") {
					t.Errorf("%s: %s", st.State, st.Reason)
				}
				lines := s.voice.heard("an open transaction holds up a source partition")
				if n := len(lines); n < 1 || n > 3 || !says(lines[0], "describe-producers --topic "+topic+" --partition 0", "abort --topic "+topic, "--start-offset 0") {
					t.Errorf("in a minute it has said %d times: %q", n, lines)
				}
				s.stop()
			})
		})
	}
}

// That nobody answers, or that partitions are not ours for a while, is not the end of a
// transaction.
func TestOpenTransactionOutlivesOutage(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.awaitRead(s)
		tx := c.leaveOpen("stranger-"+topic, &kgo.Record{Topic: s.cfg.OrderedTopic(topic), Value: []byte("v")})
		defer tx.Close()
		c.await("it to be seen", func() bool { return len(s.status().Blocked) == 1 })
		s.link.leave()
		time.Sleep(time.Minute)
		s.link.comeBack()
		c.await("it to be seen again", func() bool { return len(s.status().Blocked) == 1 })
		const ended = "the open transaction has ended"
		if lines := s.voice.heard(ended); len(lines) > 0 {
			t.Errorf("it is still open, and it has said %q", lines)
		}
		c.wrote(tx.EndTransaction(c.ctx, kgo.TryAbort))
		c.await("its end to be told", func() bool { return len(s.voice.heard(ended)) == 1 })
		s.stop()
	})
}

// An output that begins to replace timestamps while we run is told of.
func TestKafkaOutputReplacesTimestamps(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		c.awaitRead(s)
		out := s.cfg.LateTopic(topic)
		c.set(out, "message.timestamp.type", "LogAppendTime")
		const told = "an output replaces the timestamps of its records"
		c.await("it to be told", func() bool { return len(s.voice.heard(told)) > 0 })
		if line := s.voice.heard(told)[0]; !says(line, "topic="+out, "kafka-configs", "message.timestamp.type=CreateTime") {
			t.Error(line)
		}
		c.await("it to be a reason", func() bool {
			st := s.status()
			return st.State == status.Degraded && says(st.Reason, out+" replaces the timestamps")
		})
		c.set(out, "message.timestamp.type", "CreateTime")
		c.await("it to be healthy", func() bool { return s.status().State == status.Healthy })
		s.stop()
	})
}

// What is still to be read of a suspended partition is that of now, however seldom somebody
// looks.
func TestBacklogOfSuspended(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "max.message.bytes=20000000")
		c.create(topic+".ordered", 1, "max.message.bytes=50000")
		s := c.start(topic)
		base := time.Now().Add(-time.Hour)
		c.produce(c.cl, timed(topic, base, 0, noise(60_000)), timed(topic, base, 9, nil))
		c.await("it to be suspended", func() bool {
			st := s.status()
			return len(st.Partitions) == 1 && st.Partitions[0].State == status.Stopped
		})
		for i := range 10 {
			time.Sleep(10 * time.Second)
			c.produce(c.cl, timed(topic, base, 10+i, nil))
			time.Sleep(7 * time.Second)
			if p := s.of(topic, 0); p.End != int64(3+i) || p.Backlog() < 1 {
				t.Fatalf("%d have come, and the end is %d, %d to be read", 3+i, p.End, p.Backlog())
			}
		}
		s.stop()
	})
}
