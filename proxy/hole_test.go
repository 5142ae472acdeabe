package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/watermark"
)

// forgedLog is what brokers show as a partition: what compaction may leave of it, which
// kfake does not do.
type forgedLog struct {
	mu      sync.Mutex
	batches []forgedBatch
	end     int64
}

// forgedBatch has the offsets of [first, next), with records in the first of them.
type forgedBatch struct {
	first, next int64
	times       []int64
}

func (b forgedBatch) encode() []byte {
	batch := kmsg.RecordBatch{
		FirstOffset: b.first, Magic: 2, LastOffsetDelta: int32(b.next - b.first - 1), NumRecords: int32(len(b.times)),
		FirstTimestamp: 1000, MaxTimestamp: 1000, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
	}
	for i, at := range b.times {
		r := kmsg.Record{OffsetDelta: int32(i), Value: fmt.Append(nil, i), Headers: []kmsg.Header{{Key: "event-time", Value: fmt.Append(nil, at)}}}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		batch.Records = r.AppendTo(batch.Records)
	}
	const beforeLength, beforeSum, sum = 12, 21, 17
	batch.Length = int32(len(batch.AppendTo(nil)) - beforeLength)
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[sum:], crc32.Checksum(raw[beforeSum:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// from returns what a fetch gets.
func (l *forgedLog) from(at int64) (raw []byte) {
	for _, b := range l.batches {
		if b.next > at {
			raw = append(raw, b.encode()...)
		}
	}
	return raw
}

func (l *forgedLog) set(end int64, batches ...forgedBatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end, l.batches = end, batches
}

// forge has the brokers show a log as the only partition of a topic.
func (c *cluster) forge(topic string) *forgedLog {
	l, id := new(forgedLog), c.fake.TopicInfo(topic).TopicID
	c.forgeEnds(topic, func(int32) (epoch int32, end int64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return 0, l.end
	})
	c.forgeFetches(topic, id, func(asked []kmsg.FetchRequestTopicPartition) (p kmsg.FetchResponseTopicPartition, forged bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		p = kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark, p.LastStableOffset, p.LogStartOffset = l.end, l.end, 0
		p.RecordBatches = l.from(asked[0].FetchOffset)
		return p, true
	})
	return l
}

// forgeEnds has the brokers answer where the partitions of a topic end. They begin at 0.
func (c *cluster) forgeEnds(topic string, of func(partition int32) (epoch int32, end int64)) {
	c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		asked := req.(*kmsg.ListOffsetsRequest).Topics
		if len(asked) != 1 || asked[0].Topic != topic {
			return nil, nil, false
		}
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = topic
		for _, q := range asked[0].Partitions {
			p := kmsg.NewListOffsetsResponseTopicPartition()
			epoch, end := of(q.Partition)
			if p.Partition, p.LeaderEpoch, p.Offset = q.Partition, epoch, 0; q.Timestamp == -1 {
				p.Offset = end
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		resp.Topics = append(resp.Topics, t)
		return resp, nil, true
	})
}

// forgeFetches has the brokers answer fetches of a topic alone with one partition of it.
// Without records the answer takes as long as the fetch is to wait for some.
func (c *cluster) forgeFetches(topic string, id [16]byte, answer func(asked []kmsg.FetchRequestTopicPartition) (p kmsg.FetchResponseTopicPartition, forged bool)) {
	c.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		f := req.(*kmsg.FetchRequest)
		if len(f.Topics) != 1 || f.Topics[0].TopicID != id && f.Topics[0].Topic != topic {
			return nil, nil, false
		}
		p, forged := answer(f.Topics[0].Partitions)
		if !forged {
			return nil, nil, false
		}
		t := kmsg.NewFetchResponseTopic()
		t.Topic, t.TopicID, t.Partitions = f.Topics[0].Topic, f.Topics[0].TopicID, append(t.Partitions, p)
		resp := f.ResponseKind().(*kmsg.FetchResponse)
		resp.Topics = append(resp.Topics, t)
		if len(p.RecordBatches) == 0 {
			c.fake.SleepControl(func() { time.Sleep(time.Duration(f.MaxWaitMillis) * time.Millisecond) })
		}
		return resp, nil, true
	})
}

// holeBehind has the brokers show some offsets more behind the last record of a partition
// of a topic that nobody writes to any more. It returns the high watermark that they show.
func (c *cluster) holeBehind(topic string, partitions, n int32, width int64) (high int64) {
	id := c.fake.TopicInfo(topic).TopicID
	ends, epochs := map[int32]int64{}, map[int32]int32{}
	for p := range partitions {
		info := c.fake.PartitionInfo(topic, p)
		ends[p], epochs[p] = info.HighWatermark, info.Epoch
	}
	end := ends[n]
	high = end + width
	ends[n] = high
	c.forgeEnds(topic, func(partition int32) (epoch int32, end int64) { return epochs[partition], ends[partition] })
	c.forgeFetches(topic, id, func(asked []kmsg.FetchRequestTopicPartition) (p kmsg.FetchResponseTopicPartition, forged bool) {
		if len(asked) != 1 || asked[0].Partition != n || asked[0].FetchOffset < end {
			return p, false
		}
		p = kmsg.NewFetchResponseTopicPartition()
		p.Partition, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = n, high, high, 0
		return p, true
	})
	return high
}

// holes are the ways in which a log with two records can end.
func holes(times ...int64) map[string][]forgedBatch {
	n := int64(len(times))
	return map[string][]forgedBatch{
		"the last batch has lost its last records": {{0, 5, times}},
		"the last batch has no records":            {{0, n, times}, {n, 5, nil}},
		"nothing is there":                         {{0, n, times}},
		"nothing is there, behind such a batch":    {{0, n, times}, {n, 4, nil}},
	}
}

// TestLogEndsInHole: what is held comes out although the last offsets of the log have
// no records, and those that come behind them are read.
func TestLogEndsInHole(t *testing.T) {
	besideOthers(t)
	base := time.Now().Add(-24 * 365 * 40 * time.Hour).UnixMilli()
	for name, batches := range holes(base, base+100) {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				log := c.forge(topic)
				log.set(5, batches...)
				s := c.start(topic)
				c.awaitFor(6*time.Second, "both to come out", func() bool {
					s.lives()
					snaps := c.commits(s.cfg)
					return len(snaps) == 1 && snaps[0].Count == 0 && snaps[0].Low == 5
				})
				log.set(6, append(batches, forgedBatch{5, 6, []int64{base + 9000}})...)
				c.awaitFor(6*time.Second, "what came behind", func() bool { snaps := c.commits(s.cfg); return len(snaps) == 1 && snaps[0].Low == 6 })
				if out := c.contents(topic + ".ordered")[0]; len(out) != 3 {
					t.Errorf("%d came out", len(out))
				}
				s.stop()
			})
		})
	}
}

// TestReplayEndsInHole: what stood last before the commit, a late record, has been
// compacted away.
func TestReplayEndsInHole(t *testing.T) {
	besideOthers(t)
	base := time.Now().Add(-24 * 365 * 40 * time.Hour).UnixMilli()
	for name, batches := range holes(base, base+100) {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				log := c.forge(topic)
				log.set(5, forgedBatch{0, 5, []int64{base, base + 100, base - 5000, base - 5000, base - 5000}})
				s := c.start(topic, noDrain)
				c.await("all to be read", func() bool { s.lives(); snaps := c.commits(s.cfg); return len(snaps) == 1 && snaps[0].Next == 5 })
				s.stop()
				log.set(5, batches...)
				s = c.start(topic)
				c.awaitFor(6*time.Second, "both to come out", func() bool { s.lives(); snaps := c.commits(s.cfg); return len(snaps) == 1 && snaps[0].Count == 0 })
				if st := s.status(); !st.Ready {
					t.Errorf("not ready: %s", st.NotReady)
				}
				s.stop()
			})
		})
	}
}

// TestLookForHole: only an answer of the leader that shows that nothing is there is a
// proof of it.
func TestLookForHole(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		w := group.NewWatcher(func() watermark.Instant { return 7 }, fault.NewReporter(nil), func() {})
		w.Client = c.cl
		info := c.fake.PartitionInfo(topic, 0)
		look := func(at int64, epoch int32) (group.Hole, error) {
			return w.Look(c.ctx, info.Leader, epoch, c.fake.TopicInfo(topic).TopicID, group.WantedEnd{TopicPartition: group.TopicPartition{Topic: topic}, Epoch: epoch, At: at})
		}
		nothing := func(why string, at int64) {
			t.Helper()
			if found, err := look(at, info.Epoch); err != nil || found.To != at {
				t.Errorf("%s: %+v, %v", why, found, err)
			}
		}
		nothing("an empty log", 0)
		c.produce(c.cl, record(topic, 0, 1, "a"), record(topic, 0, 2, "b"))
		nothing("a record", 0)
		nothing("a record, but not the first of its batch", 1)
		nothing("the end", 2)
		tx := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("tx"))
		defer tx.Close()
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		c.produce(tx, record(topic, 0, 3, "c"))
		nothing("an open transaction", 2)
		c.wrote(tx.EndTransaction(c.ctx, kgo.TryAbort))
		nothing("an aborted one, and the control record that ends it", 2)

		if _, err := look(4, info.Epoch+1); !errors.Is(err, kerr.UnknownLeaderEpoch) {
			t.Errorf("of a leader that is behind: %v", err)
		}
		if _, err := look(9, info.Epoch); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("beyond the end: %v", err)
		}
		c.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			return req.ResponseKind(), nil, true // as a broker answers whom it throttles
		})
		if _, err := look(4, info.Epoch); !errors.Is(err, fault.ErrBadAnswer) {
			t.Errorf("throttled: %v", err)
		}
	})
}

// TestRemoteIsNoHole: a broker that gets a part of the log from remote storage answers with
// nothing, and without an error, when that is slow. What is there is waited for.
func TestRemoteIsNoHole(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.produce(c.cl, record(topic, 0, 1, "a"), record(topic, 0, 2, "b"))
		w := group.NewWatcher(func() watermark.Instant { return 7 }, fault.NewReporter(nil), func() {})
		w.Client = c.cl
		info := c.fake.PartitionInfo(topic, 0)
		local := int64(2) // where the leader's own log begins
		c.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			f := req.(*kmsg.FetchRequest)
			p := kmsg.NewFetchResponseTopicPartition()
			p.HighWatermark, p.LastStableOffset, p.LogStartOffset = 2, 2, 0
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID, t.Partitions = f.Topics[0].Topic, f.Topics[0].TopicID, append(t.Partitions, p)
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			resp.Topics = append(resp.Topics, t)
			return resp, nil, true
		})
		c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			if req.(*kmsg.ListOffsetsRequest).Topics[0].Partitions[0].Timestamp != -4 {
				return nil, nil, false
			}
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Offset = local
			if local < 0 {
				p.ErrorCode = kerr.UnsupportedVersion.Code
			}
			t := kmsg.NewListOffsetsResponseTopic()
			t.Topic, t.Partitions = topic, append(t.Partitions, p)
			resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			resp.Topics = append(resp.Topics, t)
			return resp, nil, true
		})
		for _, step := range []struct{ local, to int64 }{{2, 1}, {1, 2}, {0, 2}, {-1, 2}} {
			local = step.local
			found, err := w.Look(c.ctx, info.Leader, info.Epoch, c.fake.TopicInfo(topic).TopicID, group.WantedEnd{TopicPartition: group.TopicPartition{Topic: topic}, Epoch: -1, At: 1})
			if err != nil || found.To != step.to {
				t.Errorf("where the leader's own log begins at %d: %+v, %v", step.local, found, err)
			}
		}
	})
}

// TestOldHoleIsNone: what was found before the partition was read from elsewhere, or
// before records came, says nothing.
func TestOldHoleIsNone(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		a := c.heldAndStopped(topic, 10)
		for _, step := range []struct {
			why                  string
			from, to             int64
			since, heard, sought watermark.Instant
			passed               bool
		}{
			{why: "proven", from: 4, to: 7, passed: true},
			{why: "proven for more", from: 2, to: 7, passed: true},
			{why: "elsewhere", from: 5, to: 7},
			{why: "behind us", from: 1, to: 4},
			{why: "taken up since", from: 4, to: 7, since: 11},
			{why: "records have come since", from: 4, to: 7, heard: 11},
			{why: "read from elsewhere since", from: 4, to: 7, sought: 11},
		} {
			s := newSession(a.cfg, c.adm, map[string]preflight.Topic{}, a.proc)
			p := s.working(emit.Source{}, c.commits(a.cfg)[0], 0)
			p.Topic = topic
			p.since, p.heard, p.sought = step.since, step.heard, step.sought
			p.state.Skip(4, 0)
			p.ends = group.Ends{Hole: group.Hole{From: step.from, To: step.to, Asked: 10}}
			if err := s.passHole(c.ctx, p); err != nil {
				t.Fatal(err)
			}
			want := int64(4)
			if step.passed {
				want = step.to
			}
			if at := p.state.Position(); at != want {
				t.Errorf("%s: reading stands at %d, want %d", step.why, at, want)
			}
		}
	})
}
