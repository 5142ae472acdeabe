package proxy

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestKafkaCutOver goes the way of docs/cutover.md: from a consumer of the raw topic
// to one of the ordered topic, back, and there again. On each way nothing is lost; only
// on the way back does anything come twice, and it is known how much.
func TestKafkaCutOver(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		l := &legacy{c: c, topic: c.topic(3), group: "legacy" + c.run, seen: map[int64]int{}}
		write := func(seed uint64, after time.Duration) {
			c.write(l.topic, &workload{seed: seed, records: 1000, partitions: 3, base: time.Now().Add(after - 5*time.Hour).Truncate(time.Second)})
		}
		start := "TIDEMARK_START=group:" + l.group

		// There: the consumer stands somewhere in the raw topic.
		for n := range int32(3) {
			l.commit(n, 0)
		}
		write(1, 0)
		l.consumeRaw(200)
		write(2, time.Hour)
		s := c.start(l.topic, start, noDrain)
		c.awaitRead(s)
		write(3, 2*time.Hour)
		c.awaitRead(s)
		s.stop()
		c.verify(s.cfg)
		l.consumeOrdered(s)
		l.seenAtMost(1)

		// Back: it goes on where the sidecar's group stands. It sees again what was
		// put out although something before it was held.
		again := 0
		snaps := c.commits(s.cfg)
		for _, snap := range snaps {
			again += int(snap.Next-snap.Low) - int(snap.Count)
		}
		if again == 0 {
			t.Error("nothing would be seen again, which proves nothing")
		}
		for n, snap := range snaps {
			l.commit(int32(n), snap.Low)
		}
		before := l.twice()
		l.consumeRaw(-1)
		if got := l.twice() - before; got != again {
			t.Errorf("%d records were seen again, want %d", got, again)
		}
		l.sawAll()

		// There again: the sidecar forgets where it stood, and says that it does.
		write(4, 3*time.Hour)
		c.await("the group to be empty", func() bool { return c.members(s.cfg) == 0 })
		topics := kadm.TopicsSet{}
		topics.Add(l.topic, 0, 1, 2)
		if deleted, err := c.adm.DeleteOffsets(c.ctx, s.cfg.Group, topics); err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
		before = l.twice()
		s = c.start(l.topic, start, "TIDEMARK_ON_RESET=new-epoch")
		c.awaitRead(s)
		write(5, 4*time.Hour)
		c.awaitDrained(s)
		s.stop()
		l.consumeOrdered(s)
		l.sawAll()
		if got := l.twice() - before; got != 0 {
			t.Errorf("%d records were seen again", got)
		}
	})
}

// A group that somebody is in does not stand anywhere, nor does one that is not there:
// the sidecar refuses.
func TestKafkaCutOverOfLiveConsumer(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		group := "legacy" + c.run
		c.produce(c.cl, record(topic, 0, time.Now().UnixMilli(), "one"))
		cl := c.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		defer cl.Close()
		c.await("a record", func() bool { return cl.PollFetches(c.ctx).NumRecords() > 0 })
		s := c.start(topic, "TIDEMARK_START=group:"+group)
		if fault := s.fails(); fault.ExitCode() != 2 || !strings.Contains(fault.Error(), "live members") {
			t.Errorf("it ended with %v", fault)
		}
		s = c.start(topic, "TIDEMARK_START=group:nobody"+c.run)
		if fault := s.fails(); fault.ExitCode() != 2 || !strings.Contains(fault.Error(), "nobody") {
			t.Errorf("without such a group it ended with %v", fault)
		}
	})
}

// legacy is a consumer that reads either topic, and commits what it has seen.
type legacy struct {
	c            *cluster
	topic, group string
	seen         map[int64]int // how often, by timestamp: no two records have the same
	ordered      [3]int        // how far in the outputs, records
	late         [3]int
}

// consumeRaw takes up to max records of each partition, or all, from the commit on.
func (l *legacy) consumeRaw(max int64) {
	l.c.t.Helper()
	committed, err := l.c.adm.FetchOffsets(l.c.ctx, l.group)
	if err != nil {
		l.c.t.Fatal(err)
	}
	for n, records := range l.c.contents(l.topic) {
		o, _ := committed.Lookup(l.topic, int32(n))
		from := o.At
		at := from
		for _, r := range records {
			if r.Offset >= from && (max < 0 || r.Offset < from+max) {
				l.seen[r.Timestamp.UnixMilli()]++
				at = r.Offset + 1
			}
		}
		l.commit(int32(n), at)
	}
}

func (l *legacy) commit(partition int32, at int64) {
	l.c.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: l.topic, Partition: partition, At: at, LeaderEpoch: -1})
	if err := l.c.adm.CommitAllOffsets(l.c.ctx, l.group, os); err != nil {
		l.c.t.Fatal(err)
	}
}

// consumeOrdered takes what has been put out since the last time, in order or late.
func (l *legacy) consumeOrdered(s *sidecar) {
	l.c.t.Helper()
	for topic, done := range map[string]*[3]int{s.cfg.OrderedTopic(l.topic): &l.ordered, s.cfg.LateTopic(l.topic): &l.late} {
		l.c.await("the end of "+topic, func() bool { return l.c.settled(topic) })
		for n, records := range l.c.contents(topic) {
			for _, r := range records[done[n]:] {
				l.seen[r.Timestamp.UnixMilli()]++
			}
			done[n] = len(records)
		}
	}
}

// twice counts how often a record was seen that had been seen before.
func (l *legacy) twice() (n int) {
	for _, times := range l.seen {
		n += times - 1
	}
	return n
}

func (l *legacy) seenAtMost(times int) {
	l.c.t.Helper()
	if most := slices.Max(slices.Collect(maps.Values(l.seen))); most > times {
		l.c.t.Errorf("a record was seen %d times", most)
	}
}

// sawAll checks that every record of the raw topic was seen.
func (l *legacy) sawAll() {
	l.c.t.Helper()
	for n, records := range l.c.contents(l.topic) {
		for _, r := range records {
			if l.seen[r.Timestamp.UnixMilli()] == 0 {
				l.c.t.Errorf("partition %d offset %d was never seen", n, r.Offset)
			}
		}
	}
}
