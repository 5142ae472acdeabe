package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/repair"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// mending is a repair that runs in the test's process.
type mending struct {
	c     *cluster
	link  *link
	end   context.CancelFunc // as a signal does
	kill  context.CancelFunc
	done  chan struct{} // closed when it has ended
	err   error         // what it ended with
	voice *voice

	mu      sync.Mutex
	reports []repair.Report
}

// mend starts a repair of a topic, by default one run with two hours to live.
func (c *cluster) mend(topic string, change func(*repair.Options), env ...string) *mending {
	c.t.Helper()
	hard, kill := context.WithCancel(c.ctx)
	ctx, end := context.WithCancel(hard)
	m := &mending{c: c, link: newLink(c.dial), end: end, kill: kill, done: make(chan struct{}), voice: &voice{to: c.t.Output()}}
	o := repair.Options{Reasons: repair.Behind, TTL: 2 * time.Hour, Report: func(r repair.Report) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.reports = append(m.reports, r)
		return nil
	}}
	if change != nil {
		change(&o)
	}
	cfg := c.config(topic, env...)
	connection := append([]kgo.Opt{kgo.Dialer(m.link.DialContext)}, c.connection...)
	proc := repair.NewProcess(slog.New(keyed{slog.NewTextHandler(m.voice, nil), c.t}).With("repair", topic))
	c.writers.Go(func() {
		defer close(m.done)
		m.err = repair.RunOver(ctx, hard, cfg, o, connection, proc)
	})
	return m
}

// crash ends the repair as the brokers see a kill -9.
func (m *mending) crash() {
	m.voice.muted.Store(true)
	m.link.cut()
	m.kill()
	<-m.done
}

// mended does one run and returns its report.
func (c *cluster) mended(topic string, change func(*repair.Options), env ...string) repair.Report {
	c.t.Helper()
	m := c.mend(topic, change, env...)
	select {
	case <-m.done:
	case <-time.After(c.patience()):
		c.t.Fatal("the repair does not end")
	}
	if m.err != nil {
		c.t.Fatalf("the repair ended with: %v", m.err)
	}
	return m.reports[0]
}

func (m *mending) published() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.reports {
		n += r.Corrections
	}
	return n
}

// TestRepairTellsWhatHadNoRoomForHeaders: a late record that was too large for headers is
// not called somebody else's, and the setting is named that lets the next ones keep theirs.
func TestRepairTellsWhatHadNoRoomForHeaders(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1, "max.message.bytes=20000")
		bare := record(topic+".late", 0, time.Now().UnixMilli(), "bare")
		bare.Value = make([]byte, 19_500)
		c.produce(c.cl, bare, record(topic+".late", 0, time.Now().UnixMilli(), "a stranger"))
		m := c.mend(topic, nil)
		<-m.done
		if told := m.voice.heard("had to go without headers"); len(told) != 1 || !hasAll(told[0], "offset=0", "20000", "max.message.bytes=2") {
			t.Errorf("told %q", told)
		}
		if told := m.voice.heard("cannot be read as one of Tidemark's"); len(told) != 1 || !hasAll(told[0], "offset=1") {
			t.Errorf("told %q", told)
		}
		if r := m.reports[0]; m.err != nil || r.Read != 2 || r.Unreadable != 2 {
			t.Errorf("%+v, %v", r, m.err)
		}
	})
}

// TestRepairTellsWhatHasNoTimeYet: a record of ours whose event time is still unusable is not
// called somebody else's. Once the setting is right and the group is set back, it is corrected.
func TestRepairTellsWhatHasNoTimeYet(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1)
		r := lateRecord(topic, 0, time.Now().UnixMilli(), 5, reorder.InvalidTime, time.Now())
		for i := range r.Headers {
			if r.Headers[i].Key == "event-time" {
				r.Headers[i].Value = []byte("noon")
			}
		}
		c.produce(c.cl, r)
		m := c.mend(topic, func(o *repair.Options) { o.Reasons = []string{"invalid-time"} })
		<-m.done
		if told := m.voice.heard("still has no usable event time"); len(told) != 1 || !hasAll(told[0], "offset=0", "TIDEMARK_EVENT_TIME", ".repair") {
			t.Errorf("told %q", told)
		}
		if told := m.voice.heard("cannot be read as one of Tidemark's"); len(told) > 0 {
			t.Errorf("told %q", told)
		}
		if r := m.reports[0]; m.err != nil || r.Read != 1 || r.NoTime != 1 || r.Unreadable != 0 || r.Corrections != 0 {
			t.Errorf("%+v, %v", r, m.err)
		}
	})
}

// TestRepairThatFindsOutNothing: a run that could not look at the late topics does not say
// that there is nothing on them.
func TestRepairThatFindsOutNothing(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1)
		c.create(topic+".corrections", 1, "cleanup.policy=compact")
		c.produce(c.cl, lateRecord(topic, 0, time.Now().UnixMilli(), 0, reorder.BehindWatermark, time.Now()))
		m := c.mend(topic, nil)
		<-m.done
		if m.err == nil || len(m.reports) != 0 {
			t.Errorf("%v, and it reports %+v", m.err, m.reports)
		}
	})
}

// lateRecord is a record as a sidecar puts it on the late topic.
func lateRecord(topic string, partition int32, at, offset int64, why reorder.Verdict, put time.Time) *kgo.Record {
	return routed(sourceRecord(topic, partition, at, offset), at, why, put)
}

func sourceRecord(topic string, partition int32, at, offset int64) *kgo.Record {
	r := record(topic, partition, at, fmt.Sprint(offset))
	r.Offset, r.Timestamp = offset, time.UnixMilli(at+7)
	return r
}

func routed(in *kgo.Record, at int64, why reorder.Verdict, put time.Time) *kgo.Record {
	t := watermark.Time(at * 1e6)
	return emit.NewOutbox(emit.Headers{Prefix: "tidemark-"}).Late(
		emit.Source{Topic: in.Topic, Late: in.Topic + ".late", Partition: in.Partition}, in,
		emit.Lateness{Verdict: why, Time: t, Watermark: t.Add(time.Second), AtMs: put.UnixMilli()})
}

// lateRecords writes n records to a late topic, out of order and with few event
// times so that many are equal, and returns them in order. Those of a later call
// happened later.
func (c *cluster) lateRecords(topic string, partition int32, from, n int, rnd *rand.Rand) []*kgo.Record {
	c.t.Helper()
	now := time.Now()
	base := now.Add(-time.Hour).Truncate(time.Second).UnixMilli() + int64(from)
	rs := make([]*kgo.Record, n)
	for i := range rs {
		why := reorder.BehindWatermark
		if i%5 == 0 {
			why = reorder.Overflow
		}
		at := base + rnd.Int64N(int64(n))
		in := sourceRecord(topic, partition, at, int64(from+i))
		odd(in, rnd)
		rs[i] = routed(in, at, why, now)
	}
	c.produce(c.cl, rs...)
	slices.SortStableFunc(rs, func(a, b *kgo.Record) int {
		return strings.Compare(header(a, "event-time"), header(b, "event-time")) // of one length
	})
	return rs
}

// correctedAs checks that the corrections of a topic are these late records, in
// this order, with one header more.
func (c *cluster) correctedAs(corrections string, want ...[]*kgo.Record) {
	c.t.Helper()
	c.await("the last transaction on "+corrections, func() bool { return c.settled(corrections) })
	got := c.contents(corrections)
	if len(got) != len(want) {
		c.t.Fatalf("%s has %d partitions, want %d", corrections, len(got), len(want))
	}
	for n := range want {
		var lines [2][]string
		for _, r := range got[n] {
			lines[0] = append(lines[0], wholly(r))
		}
		for _, r := range want[n] {
			lines[1] = append(lines[1], wholly(r)+` "tidemark-correction"="true"`)
		}
		for i := range min(len(lines[0]), len(lines[1])) {
			if lines[0][i] != lines[1][i] {
				c.t.Errorf("partition %d, correction %d:\n got %.400s\nwant %.400s", n, i, lines[0][i], lines[1][i])
				break
			}
		}
		if len(lines[0]) != len(lines[1]) {
			c.t.Errorf("partition %d has %d corrections, want %d", n, len(lines[0]), len(lines[1]))
		}
	}
}

// wholly writes a record down with all its headers.
func wholly(r *kgo.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s", r.Timestamp.UnixMilli(), shown(r.Key), shown(r.Value))
	for _, h := range r.Headers {
		fmt.Fprintf(&b, " %q=%s", h.Key, shown(h.Value))
	}
	return b.String()
}

// What a sidecar found late comes out once as a correction, in order, unchanged; a
// rehearsal says so before and writes nothing; a second run finds nothing. At least
// once, the sidecar may have put a record out as late twice.
func TestKafkaRepair(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				w := workload{seed: 3, records: 5000, partitions: 3}
				topic, env := c.topic(w.partitions), []string{"TIDEMARK_DELIVERY=" + delivery, "TIDEMARK_WINDOWS=tumbling:1m"}
				s := c.crashing(topic, 3, c.writing(topic, &w), env...)
				c.awaitDrained(s)
				s.stop()
				c.await("the last transaction", func() bool { return c.settled(topic + ".late") })
				want, left := c.owed(topic)
				var n int64
				for _, p := range want {
					n += int64(len(p))
				}
				dry := c.mended(topic, func(o *repair.Options) { o.DryRun = true }, env...)
				if l, err := c.adm.ListTopics(c.ctx, topic+".corrections"); err != nil || l.Has(topic+".corrections") {
					t.Errorf("the rehearsal has created the topic: %v", err)
				}
				r := c.mended(topic, nil, env...)
				if n == 0 || r.Corrections != n || dry.Corrections != n || r.Others() != left {
					t.Errorf("%d corrections, %d rehearsed, %d late for other reasons; want %d and %d", r.Corrections, dry.Corrections, r.Others(), n, left)
				}
				c.correctedAs(topic+".corrections", want...)
				again := c.mended(topic, nil, env...)
				if again.Read != 0 || len(again.Partitions) != 0 {
					t.Errorf("there is something left to do: %+v", again)
				}
				c.correctedAs(topic+".corrections", want...)
			})
		})
	}
}

// owed returns what a repair has to publish of a late topic, by a few plain lines,
// and how many records are late for other reasons.
func (c *cluster) owed(topic string) (want [][]*kgo.Record, left int64) {
	for _, records := range c.contents(topic + ".late") {
		var chosen []*kgo.Record
		seen := map[string]bool{}
		for _, r := range records {
			switch reason, id := header(r, "tidemark-late-reason"), header(r, "tidemark-source-offset"); {
			case reason != "behind-watermark" && reason != "overflow":
				left++
			case !seen[id]:
				seen[id] = true
				chosen = append(chosen, r)
			}
		}
		slices.SortStableFunc(chosen, func(a, b *kgo.Record) int {
			if d := strings.Compare(header(a, "event-time"), header(b, "event-time")); d != 0 {
				return d
			}
			x, y := header(a, "tidemark-source-offset"), header(b, "tidemark-source-offset")
			if d := len(x) - len(y); d != 0 {
				return d
			}
			return strings.Compare(x, y)
		})
		want = append(want, chosen)
	}
	return want, left
}

// A repair that crashes again and again, at any request, publishes every correction
// once, and in order.
func TestKafkaRepairCrashAnywhere(t *testing.T) {
	besideOthers(t)
	for seed := range seeds(6, 2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				rnd := rand.New(rand.NewPCG(seed, 8))
				topic := c.topic(2)
				c.create(topic+".late", 2)
				want := make([][]*kgo.Record, 2)
				crashes := 0
				for round := range 12 {
					for p := range int32(2) {
						want[p] = append(want[p], c.lateRecords(topic, p, round*200, 200, rnd)...)
					}
					m := c.mend(topic, nil)
					m.link.breakAt(1+rnd.IntN(60), rnd.IntN(2) == 0)
					select {
					case <-m.link.broken:
						crashes++
					case <-m.done:
						if m.err != nil {
							t.Fatal(m.err)
						}
					}
					m.crash()
				}
				c.mended(topic, nil)
				c.correctedAs(topic+".corrections", want...)
				if crashes < 2 {
					t.Errorf("only %d crashes", crashes)
				}
			})
		})
	}
}

// A stop at any moment is a clean end, leaves no transaction open, and the next run
// does the rest.
func TestKafkaRepairStops(t *testing.T) {
	for seed := range seeds(6, 2) {
		onKafka(t, func(t *testing.T, c *cluster) {
			rnd := rand.New(rand.NewPCG(seed, 9))
			topic := c.topic(1)
			c.create(topic+".late", 1)
			var want []*kgo.Record
			stayed := 0
			for round := range 5 {
				want = append(want, c.lateRecords(topic, 0, round*300, 300, rnd)...)
				m := c.mend(topic, nil)
				m.link.delay.Store(int64(2 * time.Millisecond))
				time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
				took := since(func() { m.end(); <-m.done })
				if m.err != nil || took > 5*time.Second {
					t.Errorf("stopped within %v: %v", took, m.err)
				}
				// It leaves the group at once, if it came to it; but for a stop at the very
				// moment at which it joins, before it knows as whom.
				group := repair.ConfigOf(c.config(topic)).Group
				left := func() bool {
					groups, err := c.adm.DescribeGroups(c.ctx, group)
					return err == nil && len(groups[group].Members) == 0
				}
				if !left() {
					stayed++
					c.awaitFor(8*time.Second, "the session timeout of a member that stayed", left)
				}
				if l, err := c.adm.ListTopics(c.ctx, topic+".corrections"); err == nil && l.Has(topic+".corrections") {
					c.awaitFor(5*time.Second, "the end of the transaction", func() bool { return c.settled(topic + ".corrections") })
				}
			}
			if stayed > 1 {
				t.Errorf("%d of 5 stayed in the group", stayed)
			}
			c.mended(topic, nil)
			c.correctedAs(topic+".corrections", want)
		})
	}
}

// A stop in the midst of a transaction undoes it: readers of the corrections are not
// kept waiting until it times out.
func TestKafkaRepairStopUndoes(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1)
		c.create(topic+".corrections", 1)
		now := time.Now()
		var want []*kgo.Record
		for i := range int64(500) {
			r := lateRecord(topic, 0, now.Add(-time.Hour).UnixMilli()+i, i, reorder.Overflow, now)
			r.Value = make([]byte, 20_000) // several batches
			want = append(want, r)
		}
		c.produce(c.cl, want...)
		m := c.mend(topic, nil)
		m.link.delay.Store(int64(200 * time.Millisecond))
		c.await("an open transaction", func() bool {
			behind, ok := c.unsettled(topic + ".corrections")
			return ok && len(behind) > 0
		})
		m.end()
		<-m.done
		c.awaitFor(5*time.Second, "its end", func() bool { return c.settled(topic + ".corrections") })
		if got := c.contents(topic + ".corrections"); m.err != nil || len(got[0]) > 0 {
			t.Errorf("%d corrections: %v", len(got[0]), m.err)
		}
		c.mended(topic, nil)
		c.correctedAs(topic+".corrections", want)
	})
}

// Of two repairs at the same time one goes on, the other fails with a word about it
// or was done before, and nothing comes twice: also when one of them stands still
// while the other does all the work and leaves.
func TestKafkaRepairTwoAtOnce(t *testing.T) {
	severalMembers(t)
	for seed := range seeds(16, 4) {
		onKafka(t, func(t *testing.T, c *cluster) {
			rnd := rand.New(rand.NewPCG(seed, 10))
			topic := c.topic(1)
			c.create(topic+".late", 1)
			want := c.lateRecords(topic, 0, 0, 2000, rnd)
			one := c.mend(topic, nil)
			one.link.delay.Store(int64(10 * time.Millisecond))
			time.Sleep(time.Duration(rnd.IntN(900)) * time.Millisecond)
			if seed%2 == 0 {
				one.link.freeze()
			}
			other := c.mend(topic, nil)
			<-other.done
			one.link.melt()
			<-one.done
			if one.err != nil && other.err != nil {
				t.Errorf("both failed: %v; %v", one.err, other.err)
			}
			for _, m := range []*mending{one, other} {
				fault, ok := errors.AsType[*fault.Fault](m.err)
				if m.err != nil && (!ok || fault.Code != 1 || !strings.Contains(fault.Advice, "only one at a time")) {
					t.Errorf("one of them: %v", m.err)
				}
			}
			c.mended(topic, nil)
			c.correctedAs(topic+".corrections", want)
		})
	}
}

// A repair that loses its transactional id, but not its place in the group, takes the id
// back: the other one may have lost it too.
func TestRepairTakesItsIDBack(t *testing.T) {
	for _, times := range []int{2, 3} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			c.create(topic+".late", 1)
			want := c.lateRecords(topic, 0, 0, 20, rand.New(rand.NewPCG(1, 12)))
			c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced, Count: times})
			m := c.mend(topic, nil)
			<-m.done
			if times == 2 {
				if m.err != nil {
					t.Error(m.err)
				}
			} else if fault, ok := errors.AsType[*fault.Fault](m.err); !ok || fault.Code != 1 || !strings.Contains(fault.Advice, "only one at a time") {
				t.Errorf("fenced %d times in a minute: %v", times, m.err)
			}
			c.mended(topic, nil)
			c.correctedAs(topic+".corrections", want)
		})
	}
}

// With an interval it goes on until it is stopped.
func TestKafkaRepairEvery(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		rnd := rand.New(rand.NewPCG(1, 11))
		topic := c.topic(1)
		c.create(topic+".late", 1)
		m := c.mend(topic, func(o *repair.Options) { o.Every = 2 * time.Second })
		var want []*kgo.Record
		for round := range 3 {
			want = append(want, c.lateRecords(topic, 0, round*10, 10, rnd)...)
			c.await("corrections", func() bool { return m.published() == int64(len(want)) })
		}
		m.end()
		<-m.done
		if m.err != nil || len(m.reports) < 3 {
			t.Errorf("%d runs: %v", len(m.reports), m.err)
		}
		c.correctedAs(topic+".corrections", want)
	})
}

// Each record is dealt with as it says of itself, up to the millisecond.
func TestRepairChooses(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1)
		now := time.Now().Add(time.Second) // of the run
		at := now.Add(-3 * time.Hour).UnixMilli()
		var all []*kgo.Record
		add := func(ms, offset int64, why reorder.Verdict, put time.Time) *kgo.Record {
			r := lateRecord(topic, 0, ms, offset, why, put)
			all = append(all, r)
			return r
		}
		without := func(r *kgo.Record, name string) {
			r.Headers = slices.DeleteFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == name })
		}
		set := func(r *kgo.Record, name, value string) {
			for i := range r.Headers {
				if r.Headers[i].Key == name {
					r.Headers[i].Value = []byte(value)
				}
			}
		}
		b := add(at+20, 5, reorder.BehindWatermark, now)
		oldest := add(at+10, 9, reorder.Overflow, now.Add(-2*time.Hour)) // to the millisecond
		add(at, 10, reorder.BehindWatermark, now.Add(-2*time.Hour-time.Millisecond))
		add(at, 11, reorder.Future, now)
		set(add(at, 12, reorder.BehindWatermark, now), "tidemark-late-reason", "a whim")
		again := add(at+20, 4, reorder.BehindWatermark, now)
		twice := *again
		all = append(all, &twice)
		once := add(at, 13, reorder.BehindWatermark, now)
		once.Headers = append(once.Headers, kgo.RecordHeader{Key: "tidemark-correction", Value: []byte("true")})
		// One that was a source record already, and came late there.
		once = add(at, 14, reorder.BehindWatermark, now)
		once.Headers = slices.Insert(once.Headers, 0, kgo.RecordHeader{Key: "tidemark-correction", Value: []byte("true")})
		without(add(at, 15, reorder.BehindWatermark, now), "tidemark-late-at")
		set(add(at, 16, reorder.BehindWatermark, now), "tidemark-late-at", "yesterday")
		set(add(at, 17, reorder.BehindWatermark, now), "tidemark-late-at", "-1")
		set(add(at, 18, reorder.BehindWatermark, now), "event-time", "noon")
		all = append(all, record(topic+".late", 0, at, "a stranger"))
		imitation := add(at+30, 19, reorder.BehindWatermark, now)
		imitation.Headers = slices.Insert(imitation.Headers, 0,
			kgo.RecordHeader{Key: "tidemark-late-reason", Value: []byte("future")}, kgo.RecordHeader{Key: "tidemark-late-at", Value: []byte("1")})
		c.produce(c.cl, all...)

		time.Sleep(time.Until(now))
		r := c.mended(topic, nil)
		c.correctedAs(topic+".corrections", []*kgo.Record{oldest, again, b, imitation})
		if r.Read != int64(len(all)) || r.Corrections != 4 || r.Expired != 1 || r.Corrected != 2 || r.Unreadable != 4 || r.NoTime != 1 || r.Repeated != 1 ||
			fmt.Sprint(r.OtherReasons) != "map[future:1 unknown:1]" || *r.Oldest != at+10 || *r.Newest != at+30 {
			t.Errorf("%+v", r)
		}
		if r := c.mended(topic, nil); r.Read != 0 {
			t.Errorf("what was left was read again: %+v", r)
		}
		// Whoever wants more resets the group, and says where to.
		if _, err := c.adm.DeleteOffsets(c.ctx, c.config(topic).Group+".repair", kadm.TopicsSet{topic + ".late": {0: {}}}); err != nil {
			t.Fatal(err)
		}
		r = c.mended(topic, func(o *repair.Options) { o.Reasons, o.TTL, o.To = []string{"future"}, 24*time.Hour, topic+".others" })
		if r.Corrections != 1 || r.Expired != 0 {
			t.Errorf("%+v", r)
		}
		c.correctedAs(topic+".others", []*kgo.Record{all[3]})
	})
}

// The event time is that of the source record, also where one of our headers has the
// name that it is looked for under.
func TestRepairTakesTheTimeOfTheSource(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1)
		at := time.Now().Add(-time.Hour).UnixMilli()
		r := lateRecord(topic, 0, at, 7, reorder.BehindWatermark, time.Now())
		c.produce(c.cl, r)
		report := c.mended(topic, nil, "TIDEMARK_EVENT_TIME=header:tidemark-watermark,header:event-time")
		if report.Corrections != 1 || *report.Oldest != at {
			t.Errorf("the event time is %d, want %d", *report.Oldest, at)
		}
	})
}

// What does not fit into memory goes in pieces, each of them in order.
func TestKafkaRepairPieces(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		rnd := rand.New(rand.NewPCG(1, 12))
		topic := c.topic(2)
		c.create(topic+".late", 2)
		now := time.Now()
		base := now.Add(-time.Hour).UnixMilli()
		small := c.lateRecords(topic, 0, 0, 50, rnd)
		const n = 240
		var all []*kgo.Record
		for i := range int64(n) {
			r := lateRecord(topic, 1, base+i*7919%n, i, reorder.BehindWatermark, now)
			r.Value = make([]byte, 10_000)
			all = append(all, r)
		}
		c.produce(c.cl, all...)
		r := c.mended(topic, nil, "TIDEMARK_MEMORY=1MiB")
		if r.Corrections != n+50 || r.Partitions[0].Transactions != 1 || r.Partitions[1].Transactions != 3 || r.Transactions != 4 {
			t.Errorf("%+v", r)
		}
		c.await("the last transaction", func() bool { return c.settled(topic + ".corrections") })
		got := c.contents(topic + ".corrections")
		if len(got[0]) != len(small) {
			t.Errorf("%d corrections in partition 0", len(got[0]))
		}
		falls := 0
		for i, r := range got[1][1:] {
			if header(r, "event-time") < header(got[1][i], "event-time") {
				falls++
			}
		}
		if len(got[1]) != n || falls != 2 {
			t.Errorf("%d corrections in %d pieces", len(got[1]), falls+1)
		}
	})
}

// A correction that fills the limit of its topic goes alone; one that does not fit
// ends the repair with the setting, and is there when that has changed.
func TestKafkaRepairLargeRecord(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1, "max.message.bytes=4000000")
		c.create(topic+".corrections", 1, "max.message.bytes=1000")
		now := time.Now()
		var all []*kgo.Record
		for i, size := range []int{10, 3_000_000, 20, 30} {
			r := lateRecord(topic, 0, now.Add(-time.Hour).UnixMilli()+int64(i), int64(i), reorder.BehindWatermark, now)
			r.Value = make([]byte, size)
			all = append(all, r)
		}
		rnd := rand.New(rand.NewPCG(1, 13))
		for i := range all[1].Value { // which does not compress
			all[1].Value[i] = byte(rnd.Uint32())
		}
		c.produce(c.cl, all...)
		m := c.mend(topic, nil)
		<-m.done
		fault, ok := errors.AsType[*fault.Fault](m.err)
		if !ok || fault.Code != 1 || !strings.Contains(fault.Advice, "max.message.bytes=") {
			t.Fatalf("%v", m.err)
		}
		c.set(topic+".corrections", "max.message.bytes", "4000000")
		c.mended(topic, nil)
		c.correctedAs(topic+".corrections", all)
	})
}

// A batch of somebody else's that would fill the memory ends the repair, and with
// enough of it nothing is missing.
func TestRepairBatchInflates(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.create(topic+".late", 1, "max.message.bytes=90000000")
		now := time.Now()
		late := lateRecord(topic, 0, now.Add(-time.Hour).UnixMilli(), 0, reorder.BehindWatermark, now)
		late.Value = make([]byte, 80<<20)
		bomb := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(99<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
		defer bomb.Close()
		c.produce(bomb, late)
		m := c.mend(topic, nil, "TIDEMARK_MEMORY=16MiB")
		<-m.done
		fault, ok := errors.AsType[*fault.Fault](m.err)
		if !ok || fault.Code != 1 || !strings.Contains(fault.Error(), topic+".late partition 0 at offset 0: ") || !strings.Contains(fault.Advice, "TIDEMARK_MEMORY") {
			t.Fatalf("%v", m.err)
		}
		if r := c.mended(topic, nil, "TIDEMARK_MEMORY=512MiB"); r.Corrections != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// Partitions that the late topic gets are corrected too.
func TestKafkaRepairGrows(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		rnd := rand.New(rand.NewPCG(1, 14))
		topic := c.topic(1)
		c.create(topic+".late", 1)
		first := c.lateRecords(topic, 0, 0, 10, rnd)
		c.mended(topic, nil)
		if _, err := c.adm.UpdatePartitions(c.ctx, 2, topic+".late"); err != nil {
			t.Fatal(err)
		}
		c.await("the partition", func() bool {
			l, err := c.adm.ListEndOffsets(c.ctx, topic+".late")
			return err == nil && l.Error() == nil && len(l[topic+".late"]) == 2
		})
		c.cl.Close() // it knows of one partition
		c.open()
		second := c.lateRecords(topic, 1, 0, 10, rnd)
		c.mended(topic, nil)
		c.correctedAs(topic+".corrections", first, second)
	})
}

// A transaction that is open on the late topic is not waited for, and not passed
// over.
func TestKafkaRepairOpenTransaction(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		rnd := rand.New(rand.NewPCG(1, 15))
		topic := c.topic(1)
		c.create(topic+".late", 1)
		want := c.lateRecords(topic, 0, 0, 10, rnd)
		tx := c.transactor(topic)
		defer func() { tx.cl.Close() }()
		if err := tx.cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		open := lateRecord(topic, 0, time.Now().UnixMilli(), 1000, reorder.BehindWatermark, time.Now())
		c.produce(tx.cl, open)
		want = append(want, c.lateRecords(topic, 0, 10, 10, rnd)...)
		if r := c.mended(topic, nil); r.Corrections != 10 {
			t.Errorf("%d corrections before the open transaction", r.Corrections)
		}
		if err := tx.cl.EndTransaction(c.ctx, kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		c.await("its end", func() bool { return c.settled(topic + ".late") })
		if r := c.mended(topic, nil); r.Corrections != 10 {
			t.Errorf("%d corrections behind the aborted transaction", r.Corrections)
		}
		c.correctedAs(topic+".corrections", want)
	})
}

// What retention took before it was read is told; a late topic that was created
// anew is read from its beginning.
func TestKafkaRepairLateRecreated(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		rnd := rand.New(rand.NewPCG(1, 16))
		topic := c.topic(1)
		late := topic + ".late"
		c.create(late, 1)
		want := c.lateRecords(topic, 0, 0, 10, rnd)
		c.mended(topic, nil)
		want = append(want, c.lateRecords(topic, 0, 10, 20, rnd)...)
		var gone kadm.Offsets
		gone.Add(kadm.Offset{Topic: late, Partition: 0, At: 30})
		if _, err := c.adm.DeleteRecords(c.ctx, gone); err != nil {
			t.Fatal(err)
		}
		want = append(want[:10:10], c.lateRecords(topic, 0, 30, 5, rnd)...)
		if r := c.mended(topic, nil); r.Gone != 20 || r.Corrections != 5 {
			t.Errorf("%+v", r)
		}
		c.correctedAs(topic+".corrections", want)
		if _, err := c.adm.DeleteTopics(c.ctx, late); err != nil {
			t.Fatal(err)
		}
		c.await("the topic gone", func() bool {
			l, err := c.adm.ListTopics(c.ctx, late)
			return err == nil && !l.Has(late)
		})
		c.create(late, 1)
		c.settle()
		c.cl.Close() // it knows the topic that was
		c.open()
		want = append(want, c.lateRecords(topic, 0, 100, 50, rnd)...)
		// Brokers delete what was committed for a topic with it; should one forget,
		// the commit says for which topic it was.
		var stale kadm.Offsets
		stale.Add(kadm.Offset{Topic: late, Partition: 0, At: 35, LeaderEpoch: -1, Metadata: repair.Metadata([16]byte{1})})
		if err := c.adm.CommitAllOffsets(c.ctx, repair.ConfigOf(c.config(topic)).Group, stale); err != nil {
			t.Fatal(err)
		}
		if r := c.mended(topic, nil); r.Corrections != 50 {
			t.Errorf("%+v", r)
		}
		c.correctedAs(topic+".corrections", want)
	})
}

// Brokers before 2.8 have no topic ids: what was committed there, or is read there, is
// of the topic that has the name.
func TestRepairWithoutTopicIDs(t *testing.T) {
	none, one, two := [16]byte{}, [16]byte{1}, [16]byte{2}
	for _, c := range []struct {
		written, now [16]byte
		another      bool
	}{{none, none, false}, {none, one, false}, {one, none, false}, {one, one, false}, {one, two, true}} {
		if got := repair.OfAnother(repair.Metadata(c.written), c.now); got != c.another {
			t.Errorf("written for %x, now %x: of another topic %v", c.written[0], c.now[0], got)
		}
	}
}

// Whoever sets the group's offset back gets corrected what is behind it and no more,
// whatever their tool writes beside the offset.
func TestKafkaRepairSetBack(t *testing.T) {
	for _, metadata := range []string{"", "set by hand"} {
		onKafka(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			c.create(topic+".late", 1)
			c.lateRecords(topic, 0, 0, 10, rand.New(rand.NewPCG(1, 19)))
			c.mended(topic, nil)
			var back kadm.Offsets
			back.Add(kadm.Offset{Topic: topic + ".late", Partition: 0, At: 4, LeaderEpoch: -1, Metadata: metadata})
			if err := c.adm.CommitAllOffsets(c.ctx, repair.ConfigOf(c.config(topic)).Group, back); err != nil {
				t.Fatal(err)
			}
			if r := c.mended(topic, nil); r.Corrections != 6 {
				t.Errorf("metadata %q: %+v", metadata, r)
			}
		})
	}
}

// Requests and answers that are lost leave no trace, and the report is right although
// nobody told how a transaction ended.
func TestKafkaRepairAnswersLost(t *testing.T) {
	for seed := range seeds(6, 2) {
		onKafka(t, func(t *testing.T, c *cluster) {
			rnd := rand.New(rand.NewPCG(seed, 18))
			topic := c.topic(1)
			c.create(topic+".late", 1)
			var want []*kgo.Record
			for round := range 3 {
				want = append(want, c.lateRecords(topic, 0, round*100, 100, rnd)...)
				m := c.mend(topic, nil)
				m.link.lose(0.02, seed)
				m.link.loseAnswers(kmsg.EndTxn, 1)
				<-m.done
				if m.err != nil || m.published() != 100 {
					t.Errorf("%d published: %v", m.published(), m.err)
				}
			}
			c.correctedAs(topic+".corrections", want)
		})
	}
}

// Brokers that are away are waited for; nothing comes twice when they are back.
func TestRepairOutage(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		rnd := rand.New(rand.NewPCG(1, 17))
		topic := c.topic(1)
		c.create(topic+".late", 1)
		want := c.lateRecords(topic, 0, 0, 3000, rnd)
		m := c.mend(topic, nil)
		m.link.delay.Store(int64(10 * time.Millisecond))
		time.Sleep(300 * time.Millisecond)
		m.link.leave()
		time.Sleep(5 * time.Minute)
		m.link.comeBack()
		<-m.done
		if m.err != nil || m.published() != 3000 {
			t.Errorf("%d published: %v", m.published(), m.err)
		}
		c.correctedAs(topic+".corrections", want)
	})
}

// Corrections go neither back to where they came from nor where there is an order
// to keep.
func TestRepairRefusesTargets(t *testing.T) {
	for _, test := range []struct{ topics, to, fault string }{
		{"raw", "", ""},
		{"raw", "mended", ""},
		{"raw", "raw", "a source topic"},
		{"raw", "raw.ordered", "the ordered topic of raw"},
		{"raw", "raw.late", "the late topic of raw"},
		{"raw,raw.corrections", "", "a source topic"},
		{"a,b", "", ""},
		{"a,b", "mended", "2 topics"},
	} {
		cfg, err := config.Load([]string{"TIDEMARK_TOPICS=" + test.topics})
		if err != nil {
			t.Fatal(err)
		}
		err = preflight.CheckCorrectionsTopic(cfg, test.to)
		switch {
		case test.fault == "" && err != nil:
			t.Errorf("%+v: %v", test, err)
		case test.fault != "":
			kafkatest.WantUsage(t, err, test.fault, "--to")
		}
	}
}
