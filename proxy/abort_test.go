package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/group"
)

// sameBeside runs a second group over the same topic, undisturbed, and
// compares.
func (c *cluster) sameBeside(s *sidecar, env ...string) {
	c.t.Helper()
	calm := c.start(s.cfg.Topics[0], beside(s.cfg.Topics[0], env...)...)
	c.awaitRead(calm)
	calm.stop()
	c.same(s.cfg, calm.cfg)
}

// A request is carried out and its answer lost with the connection: nobody
// knows what became of it.
func TestKafkaAnswersLost(t *testing.T) {
	besideOthers(t)
	for _, key := range []kmsg.Key{
		kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.Produce, kmsg.InitProducerID,
		kmsg.OffsetFetch, kmsg.OffsetCommit, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Fetch,
	} {
		t.Run(key.Name(), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: 8, records: 500, partitions: 3, pause: 30 * time.Millisecond}
				topic := c.topic(w.partitions)
				env := []string{noDrain, "TIDEMARK_COMMIT_INTERVAL=20ms"}
				s := c.start(topic, env...)
				s.link.loseAnswers(key, 2)
				<-c.writing(topic, &w)
				c.awaitRead(s)
				s.stop()
				c.holds(s.cfg, &w)
				c.sameBeside(s, env...)
			})
		})
	}
}

// An abort without a rebalance: the client believes that it has read on, and
// only the commit knows where to go back to.
func TestAbortGoesBackToTheCommit(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		s := c.start(topic, noDrain)
		at := func(ms int64) { c.produce(c.cl, record(topic, 0, base+ms, "")) }
		for ms := range int64(10) {
			at(100 * ms) // 0 to 900: those up to 300 come out
		}
		c.awaitRead(s)
		h := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.cfg.OrderedTopic(topic), Err: kerr.InvalidRecord})
		for ms := range int64(10) {
			at(1000 + 100*ms)
		}
		c.awaitRead(s)
		if h.Hits() != 1 {
			t.Fatalf("%d produce requests failed", h.Hits())
		}
		s.stop()
		if r := c.verify(s.cfg); r.Read != 20 || r.Ordered != 14 || r.Buffered != 6 {
			t.Errorf("%d read, %d ordered, %d buffered", r.Read, r.Ordered, r.Buffered)
		}
	})
}

// At least once, readers see what is put out at once. What comes behind a
// record that was refused is not put out before it.
func TestNothingOvertakesRefused(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		s := c.start(topic, noDrain, "TIDEMARK_DELIVERY=at-least-once", "TIDEMARK_COMMIT_INTERVAL=2s")
		c.awaitRead(s)
		h := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: s.cfg.OrderedTopic(topic), Err: kerr.InvalidRecord})
		for ms := range int64(10) {
			c.produce(c.cl, record(topic, 0, base+1000*ms, "")) // each releases the one before
			time.Sleep(100 * time.Millisecond)
		}
		c.awaitRead(s)
		s.stop()
		if r := c.verify(s.cfg); r.Ordered != 9 || r.Repeated != 0 || h.Hits() != 1 {
			t.Errorf("%d ordered, %d came again, %d requests were refused", r.Ordered, r.Repeated, h.Hits())
		}
	})
}

// Somebody else takes the transactional id: a first and second time the
// sidecar takes it back, a third time in a minute it names it and gives up.
func TestKafkaFencedThreeTimes(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 9, records: 100_000, pause: 20 * time.Millisecond, plain: true}
		topic := c.topic(1)
		s := c.start(topic)
		c.writing(topic, &w)
		id := s.cfg.TransactionalID()
		c.await("the sidecar to give up", func() bool {
			if len(c.commits(s.cfg)) > 0 {
				_ = group.Fence(c.ctx, c.cl, id, 10*time.Second)
			}
			time.Sleep(time.Second)
			return !s.running()
		})
		fault := s.fails()
		if fault.Code != 1 || !strings.Contains(fault.Error(), id) || fault.Advice == "" {
			t.Errorf("exit code %d: %v (hint: %s)", fault.Code, fault, fault.Advice)
		}
		c.verify(s.cfg)
	})
}

// Another process with the same instance takes the membership over: the older
// one says so and ends.
func TestKafkaInstanceUsedTwice(t *testing.T) {
	severalMembers(t)
	onKafka(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 10, records: 500, partitions: 2, pause: 30 * time.Millisecond}
		topic := c.topic(2)
		older := c.start(topic, noDrain)
		written := c.writing(topic, &w)
		c.await("the first commit", func() bool { return len(c.commits(older.cfg)) > 0 })
		younger := c.start(topic, noDrain)
		fault := older.fails()
		if fault.Code != 1 || !strings.Contains(fault.Error()+fault.Advice, "instance") {
			t.Errorf("exit code %d: %v (hint: %s)", fault.Code, fault, fault.Advice)
		}
		<-written
		c.awaitRead(younger)
		younger.stop()
		c.holds(younger.cfg, &w)
	})
}

// TestDoubleSeenByRefusedCommit: the coordinator of Kafka 4 answers a commit of the older
// process with INVALID_TXN_STATE once the younger one's producer id has aborted the
// transaction. The older one still ends, and does not take the membership back.
func TestDoubleSeenByRefusedCommit(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 10, records: 500, partitions: 2, pause: 30 * time.Millisecond}
		topic := c.topic(2)
		older := c.start(topic, noDrain)
		written := c.writing(topic, &w)
		c.await("the first commit", func() bool { return len(c.commits(older.cfg)) > 0 })
		h := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidTxnState, Count: 1})
		younger := c.start(topic, noDrain)
		fault := older.fails()
		if fault.Code != 1 || !strings.Contains(fault.Error(), "second time") || h.Hits() != 1 {
			t.Errorf("exit code %d: %v; %d commits refused", fault.Code, fault, h.Hits())
		}
		<-written
		c.awaitRead(younger)
		younger.stop()
		c.holds(younger.cfg, &w)
	})
}

// TestOwnJoinIsNoDouble: a sidecar that is thrown out while it waits for the end of its
// transaction asks to join again as soon as that is over. When it then ends because it
// was fenced, brokers have a member with its instance id that it has not been told of:
// itself.
func TestOwnJoinIsNoDouble(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		member := c.start(topic)
		c.await("a member of this instance", func() bool { return len(c.commits(member.cfg)) > 0 })
		cl := c.client() // has not been told a member id
		defer cl.Close()
		if group.Replaced(c.ctx, cl, c.adm, member.cfg, newProcess(slog.New(slog.DiscardHandler)).reporter) {
			t.Error("takes itself for another process")
		}
		member.stop()
	})
}

// Coordinators move from broker to broker while transactions are under way.
func TestCoordinatorsMove(t *testing.T) {
	for seed := range seeds(5, 0) {
		onFake(t, func(t *testing.T, c *cluster) {
			w := workload{seed: seed, records: 1500, partitions: 3, pause: 40 * time.Millisecond}
			topic := c.topic(w.partitions)
			s := c.start(topic, noDrain, "TIDEMARK_COMMIT_INTERVAL=20ms")
			written := c.writing(topic, &w)
			for range 10 {
				time.Sleep(100 * time.Millisecond)
				c.fake.RehashCoordinators()
			}
			<-written
			c.awaitRead(s)
			s.stop()
			c.holds(s.cfg, &w)
		})
	}
}

// TestOffsetsWaitForTransactionBefore: brokers complete a transaction after they have answered
// its end, which takes a while on a loaded machine. Until then they refuse the offsets that
// the next one begins with if nothing has come out, and the client aborts it. To go back to
// the commit then, and to try again at once, is a circle.
func TestOffsetsWaitForTransactionBefore(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, noDrain, "TIDEMARK_MAX_OUT_OF_ORDERNESS=10m", "TIDEMARK_COMMIT_INTERVAL=20ms")
		var ended atomic.Pointer[time.Time]
		completing := func() bool { at := ended.Load(); return at != nil && time.Since(*at) < 300*time.Millisecond }
		c.fake.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			now := time.Now()
			ended.Store(&now)
			return nil, nil, false
		})
		asked := atomic.Int64{}
		c.fake.ControlKey(int16(kmsg.DescribeTransactions), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			asked.Add(1)
			if !completing() {
				return nil, nil, false
			}
			resp := r.ResponseKind().(*kmsg.DescribeTransactionsResponse)
			state := kmsg.NewDescribeTransactionsResponseTransactionState()
			state.TransactionalID, state.State = s.cfg.TransactionalID(), "PrepareCommit"
			resp.TransactionStates = append(resp.TransactionStates, state)
			return resp, nil, true
		})
		refused := c.fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Group: s.cfg.Group, Err: kerr.ConcurrentTransactions, Count: -1,
			When: func(kmsg.Request) bool { return completing() },
		})
		base := time.Now().Add(-time.Hour).UnixMilli()
		for ms := range int64(50) { // nothing of it comes out
			c.produce(c.cl, record(topic, 0, base+ms, ""))
			time.Sleep(50 * time.Millisecond)
		}
		c.awaitRead(s)
		if n := s.proc.reporter.Snapshot().Aborts; n > 0 || refused.Hits() > 0 {
			t.Errorf("%d commits were refused, %d aborted", refused.Hits(), n)
		}
		if ended.Load() == nil || asked.Load() < 10 {
			t.Errorf("asked %d times whether the transaction before is over", asked.Load())
		}
		s.stop()
	})
}

// TestAbortedCommitTellsWhy: the client hides why it aborted a commit, and the log has it
// all the same.
func TestAbortedCommitTellsWhy(t *testing.T) {
	besideOthers(t)
	for _, test := range []struct {
		key  kmsg.Key
		err  *kerr.Error
		want string
	}{
		{kmsg.TxnOffsetCommit, kerr.UnknownServerError, "it accepts heartbeats, so it refused the offsets"},
		{kmsg.Heartbeat, kerr.IllegalGeneration, "ILLEGAL_GENERATION"},
	} {
		t.Run(test.key.Name(), func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				s := c.start(topic, noDrain)
				base := time.Now().Add(-time.Hour).UnixMilli()
				c.produce(c.cl, record(topic, 0, base, "first"))
				c.awaitRead(s)
				committing := atomic.Bool{}
				c.fake.ControlKey(int16(kmsg.TxnOffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
					c.fake.KeepControl()
					committing.Store(true)
					return nil, nil, false
				})
				c.fake.Fault(kfake.Fault{
					Keys: []kmsg.Key{test.key}, Group: s.cfg.Group, Err: test.err, Count: 2,
					When: func(kmsg.Request) bool { return test.key == kmsg.TxnOffsetCommit || committing.Load() },
				})
				c.produce(c.cl, record(topic, 0, base+10_000, "second"))
				c.awaitRead(s)
				if told := s.voice.heard("a commit was aborted"); len(told) == 0 || !strings.Contains(told[0], test.want) {
					t.Errorf("the log says %q", told)
				}
				s.stop()
				c.verify(s.cfg)
			})
		})
	}
}

// The group throws the sidecar out while a commit waits for its records: the
// commit fails, in bounded time, and the sidecar joins again.
func TestThrownOutDuringCommit(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		s := c.start(topic, noDrain)
		c.produce(c.cl, record(topic, 0, base, "first"))
		c.awaitRead(s)
		stuck := c.fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: s.cfg.OrderedTopic(topic), Err: kerr.NotLeaderForPartition, Count: -1,
		})
		c.produce(c.cl, record(topic, 0, base+1000, "second"))
		c.await("the commit to wait", func() bool { return stuck.Hits() > 0 })
		out := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: s.cfg.Group, Err: kerr.UnknownMemberID})
		c.await("the heartbeat to fail", func() bool { return out.Hits() > 0 })
		stuck.Remove()
		if took := since(func() { c.awaitRead(s) }); took > 8*time.Second { // well below the transaction timeout of 10s
			t.Errorf("it took %v", took)
		}
		s.stop()
		if r := c.verify(s.cfg); r.Read != 2 || r.Ordered != 1 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}

// The first batch of a transaction is refused while the brokers still end the
// one before, which is often. It is sent again at once: the client would ask for
// metadata first, and wait for seconds until it may.
func TestBatchSentAgainIsNotHeldBack(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		w := workload{seed: 8, records: 6000, partitions: 3, plain: true, pause: 30 * time.Millisecond}
		topic := c.topic(w.partitions)
		s := c.start(topic)
		written := c.writing(topic, &w)
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		n := 0
		h := c.fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: s.cfg.OrderedTopic(topic), Err: kerr.ConcurrentTransactions, Count: 1000,
			When: func(kmsg.Request) bool { n++; return n%4 == 0 },
		})
		reader := c.lookOn(s.cfg.OrderedTopic(topic), 0, 1, 2)
		<-written
		longest := reader.leave()
		if hits := h.Hits(); hits < 10 || longest > 1500*time.Millisecond {
			t.Errorf("%d batches were sent again, and a reader stood still for %v", hits, longest)
		}
		s.stop()
	})
}

// Behind a load balancer, a broker that is away accepts connections and closes
// them. Once one broker has answered, that is tried again at once.
func TestHungUpIsTriedAgain(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(3)
		dial, dials := c.dial, atomic.Int64{}
		c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if n := dials.Add(1); err == nil && n > 1 && n < 20 && n%4 > 0 {
				conn.Close()
				return hungUp{conn}, nil
			}
			return conn, err
		}
		s := c.start(topic)
		took := since(func() { c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 }) })
		if n := dials.Load(); n < 20 || took > 3*time.Second {
			t.Errorf("the first commit took %v and %d connections", took, n)
		}
		s.stop()
	})
}

// hungUp is a connection behind which nobody is.
type hungUp struct{ net.Conn }

func (hungUp) Write(b []byte) (int, error) { return len(b), nil }
func (hungUp) Read([]byte) (int, error)    { return 0, io.EOF }
