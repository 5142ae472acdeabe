package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// unwelcome is a timestamp that an output refuses in the tests below.
var unwelcome = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// refuse has brokers refuse the batches of an output partition in which there is a
// record with an unwelcome timestamp, as a whole, as brokers do.
func (c *cluster) refuse(topic string, partition int32, err *kerr.Error) *kfake.FaultHandle {
	return c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{partition}, Err: err, Count: -1,
		When: func(req kmsg.Request) bool {
			for _, t := range req.(*kmsg.ProduceRequest).Topics {
				for _, p := range t.Partitions {
					var batch kmsg.RecordBatch
					if p.Partition == partition && batch.ReadFrom(p.Records) == nil && batch.MaxTimestamp >= unwelcome.UnixMilli() {
						return true
					}
				}
			}
			return false
		},
	})
}

var refusalModes = []string{"exactly-once", "at-least-once"}

// Of a stream in three partitions brokers refuse one record for good, in the midst of
// others. Its partition puts out all that is before it and stops at it; the log names
// the place and the way out. The others go on, undisturbed by the tries, and what was
// put out is not put out again. When the record is let in, all comes out.
func TestRefusedForGood(t *testing.T) {
	besideOthers(t)
	for _, err := range []*kerr.Error{kerr.InvalidTimestamp, kerr.InvalidRecord} {
		for _, delivery := range refusalModes {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/late=%v", err.Message, delivery, late), func(t *testing.T) {
					onFake(t, func(t *testing.T, c *cluster) { stopsAtRefused(t, c, err, delivery, late) })
				})
			}
		}
	}
}

func stopsAtRefused(t *testing.T, c *cluster, refusal *kerr.Error, delivery string, late bool) {
	const each, bad, ends = 700, 317, 3
	topic := c.topic(3)
	base := time.Now().Add(-time.Hour)
	ordered, out := topic+".ordered", topic+".ordered"
	var all []*kgo.Record
	for i := range each {
		for n := range int32(3) {
			r := timed(topic, base, i, fmt.Append(nil, i))
			if n == 0 && i == bad {
				r.Timestamp = unwelcome
				if late {
					r = timed(topic, base, i-100, fmt.Append(nil, i))
					r.Timestamp, out = unwelcome, topic+".late"
				}
			}
			r.Partition = n
			all = append(all, r)
		}
	}
	c.produce(c.cl, all...)
	refused := c.refuse(out, 0, refusal)
	s := c.start(topic, noDrain, "TIDEMARK_DELIVERY="+delivery)
	c.await("the partition to stop", func() bool {
		s.lives()
		st := s.status()
		return st != nil && len(st.Partitions) == 3 && st.Partitions[0].State == status.Stopped
	})
	before := bad // all of it
	if late {
		before-- // one is held
	}
	if snap := c.commits(s.cfg)[0]; late && snap.Next != bad || !late && snap.Low != bad {
		t.Errorf("it stands at %+v, want %d", snap, bad)
	}
	if lines := s.voice.heard("a partition is suspended"); len(lines) != 1 || !hasAll(lines[0], "the record at offset "+strconv.Itoa(bad)+" to "+out, refusal.Message, "hint=", fmt.Sprintf("%s partition 0 offset %d: ", topic, bad)) {
		t.Errorf("told: %q", lines)
	}
	c.await("the others to go on", func() bool { return len(c.contents(ordered)[2]) >= each-2 })
	tries, aborts := refused.Hits(), s.proc.reporter.Snapshot().Aborts
	if tries > 25 || aborts > 4 {
		t.Errorf("the record was found in %d tries, with %d aborts", tries, aborts)
	}
	put := func() (n []int) {
		for _, rs := range c.contents(ordered) {
			n = append(n, len(rs))
		}
		return n
	}
	// The tries disturb nobody.
	was := put()
	for i := range 20 {
		for n := range int32(3) {
			r := timed(topic, base, each+i, nil)
			r.Partition = n
			c.produce(c.cl, r)
		}
		time.Sleep(15 * time.Second)
	}
	if now := put(); now[0] != was[0] || now[1]-was[1] != 20 || now[2]-was[2] != 20 {
		t.Errorf("%v records were there, and after 20 more in each partition %v", was, now)
	}
	if n := s.proc.reporter.Snapshot().Aborts; n != aborts {
		t.Errorf("%d aborts while it stood still", n-aborts)
	}
	if n := refused.Hits() - tries; n < 8 || n > 60 {
		t.Errorf("tried %d times in 5 minutes", n)
	}
	if got := slices.Max(copies(c.contents(ordered)[0])); delivery == "exactly-once" && got > 1 || got > ends {
		t.Errorf("a record came out %d times", got)
	}
	if got := len(c.contents(ordered)[0]); delivery == "exactly-once" && got != before {
		t.Errorf("%d came out before it, want %d", got, before)
	}
	c.verify(s.cfg)
	refused.Remove()
	took := since(func() { c.awaitRead(s) })
	if took > retrySuspended+2*time.Second {
		t.Errorf("it took %v to go on", took)
	}
	s.stop()
	if r := c.verify(s.cfg); r.Read != 3*(each+20) {
		t.Errorf("%d read", r.Read)
	}
}

// copies counts how often each record of the source came out.
func copies(rs []*kgo.Record) (counts []int) {
	seen := map[string]int{}
	for _, r := range rs {
		seen[header(r, "tidemark-source-offset")]++
	}
	for _, n := range seen {
		counts = append(counts, n)
	}
	return counts
}

// hasAll reports whether all of some words are in a text.
func hasAll(text string, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// Brokers take nothing for one output partition. It stops, the others go on, in either
// mode, and what is tried again disturbs nobody. When records are taken again, all
// comes out.
func TestOutputPartitionTakesNothing(t *testing.T) {
	besideOthers(t)
	for _, err := range []*kerr.Error{kerr.NotEnoughReplicas, kerr.KafkaStorageError, kerr.PolicyViolation} {
		for _, delivery := range refusalModes {
			t.Run(err.Message+"/"+delivery, func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(3)
					base, written := time.Now().Add(-time.Hour), 0
					s := c.start(topic, noDrain, "TIDEMARK_DELIVERY="+delivery)
					write := func(seconds int) {
						for range seconds {
							for n := range int32(3) {
								r := timed(topic, base, written, nil)
								r.Partition = n
								c.produce(c.cl, r)
							}
							written++
							time.Sleep(time.Second)
						}
					}
					write(3)
					refused := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic + ".ordered", Partitions: []int32{1}, Err: err, Count: -1})
					write(60)
					st := s.status()
					if st == nil || st.Partitions[1].State != status.Stopped || !hasAll(st.Partitions[1].Hold.Words, err.Message) {
						t.Fatalf("%+v", st)
					}
					aborts := s.proc.reporter.Snapshot().Aborts
					write(120)
					s.lives()
					if n := s.proc.reporter.Snapshot(); n.Aborts != aborts || n.Sessions > 1 {
						t.Errorf("%d aborts while it stood still, %d sessions", n.Aborts-aborts, n.Sessions)
					}
					for n, rs := range c.contents(topic + ".ordered") {
						if least := written - 7; n != 1 && len(rs) < least {
							t.Errorf("%d came out of partition %d, want %d", len(rs), n, least)
						}
					}
					refused.Remove()
					if took := since(func() { c.awaitRead(s) }); took > retrySuspended+2*time.Second {
						t.Errorf("it took %v to go on", took)
					}
					s.stop()
					if r := c.verify(s.cfg); r.Read != int64(3*written) {
						t.Errorf("%d read", r.Read)
					}
				})
			})
		}
	}
}

// A record that does not fit is tried again every 30 s, and that undoes nothing of the
// other partitions.
func TestTryingAgainUndoesNothing(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2, "max.message.bytes=20000000")
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 2, "max.message.bytes=50000")
		}
		base := time.Now().Add(-time.Hour)
		c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 1, noise(60_000)), timed(topic, base, 9, nil))
		s := c.start(topic, noDrain)
		c.await("the partition to stop", func() bool {
			st := s.status()
			return st != nil && len(st.Partitions) == 2 && st.Partitions[0].State == status.Stopped
		})
		before := s.proc.reporter.Snapshot()
		for i := range 100 {
			r := timed(topic, base, i, nil)
			r.Partition = 1
			c.produce(c.cl, r)
			time.Sleep(3 * time.Second)
		}
		if now := s.proc.reporter.Snapshot(); now.Aborts != before.Aborts || now.Record-before.Record < 8 {
			t.Errorf("in 5 minutes it was tried %d times, and %d transactions were undone", now.Record-before.Record, now.Aborts-before.Aborts)
		}
		s.stop()
		c.verify(s.cfg)
	})
}

// The record of a group that is refused may be the first of it, and one behind it be taken:
// late and ordered records go to two output partitions. What was taken is then undone with
// the rest, for it comes again.
func TestTakenBehindTheRefusedComesOnce(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		base := time.Now().Add(-time.Hour)
		s := c.start(topic, noDrain)
		c.await("the first commit", func() bool { return len(c.commits(s.cfg)) == 2 })
		refused := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic + ".ordered", Partitions: []int32{0}, Err: kerr.InvalidRecord, Count: -1})
		// Of partition 0 the second lets the first come out, and makes the third late.
		// The other partition has something to commit as well.
		rs := []*kgo.Record{timed(topic, base, 0, nil), timed(topic, base, 9, nil), timed(topic, base, 1, nil), timed(topic, base, 0, nil), timed(topic, base, 9, nil)}
		rs[3].Partition, rs[4].Partition = 1, 1
		c.produce(c.cl, rs...)
		c.await("the partition to stop", func() bool {
			st := s.status()
			return st != nil && len(st.Partitions) == 2 && st.Partitions[0].State == status.Stopped
		})
		refused.Remove()
		c.awaitRead(s)
		s.stop()
		if n := len(c.contents(topic + ".late")[0]); n != 1 {
			t.Errorf("the late record came out %d times", n)
		}
		c.verify(s.cfg)
	})
}

// What a quiet partition puts out in the midst of a long release has the group of a suspect
// waited for. If that stops the suspect, whose release it was, nothing more of it is put
// out: the transaction would have it without its offset.
func TestStoppedInsideItsRelease(t *testing.T) {
	// The client may send the records in two batches, of which the second is taken. Then
	// everything goes back to the commit, and nothing is seen of what is tested.
	for range 5 {
		if stopsInsideItsRelease(t) {
			return
		}
	}
	t.Error("each time everything went back to the commit")
}

// stopsInsideItsRelease reports whether the partition was suspended on the spot.
func stopsInsideItsRelease(t *testing.T) (suspended bool) {
	onFake(t, func(t *testing.T, c *cluster) {
		const due = 300 // more than clockEvery, and less than groupSize
		topic := c.topic(2)
		a := c.start(topic)
		c.await("the first commit", func() bool { return len(c.commits(a.cfg)) == 2 })
		a.stop()
		s := newSession(a.cfg, c.adm, map[string]preflight.Topic{}, a.proc)
		connection := append(append([]kgo.Opt{kgo.Dialer(c.dial)}, c.connection...), group.PromptRetries()...)
		gts, err := kgo.NewGroupTransactSession(s.clientOpts(connection)...)
		if err != nil {
			t.Fatal(err)
		}
		defer group.CloseClient(gts.Client(), s.member.Cancel)
		defer s.member.Start() // it is assigned nothing before
		s.use(gts.Client(), gts)
		s.stopAt(c.ctx)
		take := func(n int32, rs ...*kgo.Record) *partition {
			s.readClocks()
			p := s.find(topic, n)
			if p == nil {
				p = s.working(emit.Source{Topic: topic, Ordered: topic + ".ordered", Late: topic + ".late", Partition: n}, c.commits(a.cfg)[n], s.now())
				s.install(p)
			}
			for i, r := range rs {
				r.Offset, r.Partition = p.state.Position()+int64(i), n
			}
			err := ignoreHandled(s.takeRecords(c.ctx, p, rs))
			if err != nil && !errors.Is(err, errAborted) {
				t.Fatal(err)
			}
			suspended = err == nil
			return p
		}
		base := time.Now().Add(-time.Hour)
		quiet := take(1, timed(topic, base, 0, nil))
		time.Sleep(time.Minute)
		for range 60 {
			time.Sleep(time.Second)
			s.watcher.Note(group.TopicPartition{Topic: topic, N: 1}, s.now(), 1, 1)
		}
		s.watcher.TakeFresh() // it is not looked at yet
		c.refuse(topic+".ordered", 0, kerr.InvalidRecord)
		var rs []*kgo.Record
		for i := range due {
			rs = append(rs, timed(topic, base, 0, fmt.Append(nil, i)))
		}
		rs[0].Timestamp = unwelcome
		s.writer.Source(emit.Source{Topic: topic, Ordered: topic + ".ordered", Late: topic + ".late"}).Suspect(1000)
		take(0, rs...)
		s.watcher.Note(group.TopicPartition{Topic: topic, N: 1}, s.now(), 1, 1)
		if take(0, timed(topic, base, 1000, nil)); !suspended {
			return
		}
		if s.find(topic, 0) != nil || quiet.output.Written() != 1 {
			t.Errorf("stopped: %v, put out by the other: %d", s.find(topic, 0) == nil, quiet.output.Written())
		}
		if err := s.writer.Flush(c.ctx); err != nil {
			t.Fatal(err)
		}
		info := c.fake.PartitionInfo(topic+".ordered", 0)
		if info.HighWatermark != 0 {
			t.Errorf("%d records are in the transaction", info.HighWatermark)
		}
	})
	return suspended
}
