package workload

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// EventTimeHeader carries the event time, in ms since 1970, as decimal text.
const EventTimeHeader = "event-time"

// LabelHeader stands where Tidemark's watermark would, on records that nobody has put
// in order. Its name is as long.
const LabelHeader = "measured-watermark"

// A value begins with the offset that the record has in its source partition
// (8 bytes, big-endian), so that a check can tell which record an output is
// even if whoever made it added nothing to it.
const identity = 8

// Identity returns the source offset that a value begins with.
func Identity(value []byte) (offset int64, ok bool) {
	if len(value) < identity {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(value)), true
}

// stream makes the records of one partition.
type stream struct {
	topic     string
	partition int32
	size      int
	lag       lag
	rng       *rand.Rand
	keys      [][]byte
	next      int64 // offset of the next
}

func newStream(c Case, topic string, seed uint64, partition int32) *stream {
	name := fnv.New64a()
	fmt.Fprintf(name, "%s/%d", c.Shape, partition)
	rng := rand.New(rand.NewPCG(seed, name.Sum64()))
	return &stream{
		topic: topic, partition: partition, size: c.Size,
		lag: shapes[c.Shape](rng, c.Step), rng: rng, keys: keysOf(partition, c.Partitions),
	}
}

// record makes the next record, given its place in event time.
func (s *stream) record(place time.Time) *kgo.Record {
	return s.at(place.Add(-s.lag()).UnixMilli())
}

// at makes the next record with an event time in ms. The record's timestamp is
// the same: a job that takes it for its clock keeps it, and nothing is lost.
func (s *stream) at(ms int64) *kgo.Record {
	value := make([]byte, s.size)
	binary.BigEndian.PutUint64(value, uint64(s.next))
	text := filler()
	copy(value[identity:], text[s.rng.IntN(len(text)-s.size):])
	s.next++
	return &kgo.Record{
		Topic: s.topic, Partition: s.partition, Timestamp: time.UnixMilli(ms),
		Key: s.keys[s.rng.IntN(len(s.keys))], Value: value,
		Headers: []kgo.RecordHeader{{Key: EventTimeHeader, Value: strconv.AppendInt(nil, ms, 10)}},
	}
}

// filler is what values are cut from: JSON that compresses about as well as
// JSON does. It is so long that the pieces in a batch hardly overlap.
var filler = sync.OnceValue(func() []byte {
	rng := rand.New(rand.NewPCG(5, 6))
	b := make([]byte, 0, 8<<20)
	for len(b) < 8<<20-200 {
		b = fmt.Appendf(b, `{"device":"%016x","temperature":%.3f,"battery":%d,"place":"%x,%x"}`,
			rng.Uint64(), 20+5*rng.NormFloat64(), rng.IntN(100), rng.Uint32(), rng.Uint32())
	}
	return b
})

// keysOf returns keys that Kafka's default partitioner puts into a partition,
// so that a job which knows no better than to partition by key does right.
func keysOf(partition, partitions int32) [][]byte {
	keysMu.Lock()
	defer keysMu.Unlock()
	if allKeys[partitions] == nil {
		all := make([][][]byte, partitions)
		hasher := kgo.StickyKeyPartitioner(nil).ForTopic("")
		for i := range int(partitions) * keysPerPartition {
			key := fmt.Appendf(nil, "device-%06d", i)
			p := hasher.Partition(&kgo.Record{Key: key}, int(partitions))
			all[p] = append(all[p], key)
		}
		allKeys[partitions] = all
	}
	return allKeys[partitions][partition]
}

// With so many keys on average no partition is left without.
const keysPerPartition = 64

var (
	keysMu  sync.Mutex
	allKeys = map[int32][][][]byte{}
)
