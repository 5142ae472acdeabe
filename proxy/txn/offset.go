package txn

import (
	"errors"
	"fmt"
	"iter"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Offset is what a commit stores for one partition.
type Offset struct {
	Topic       string
	ID          [16]byte // of the topic; zero before Kafka 2.8
	Partition   int32
	At          int64 // where the next owner begins to read
	LeaderEpoch int32 // of the record before; -1: not known
	Metadata    string
}

// CommitBytes is the largest commit that is tried first, in bytes. Brokers write its offsets
// as one batch into __consumer_offsets, which accepts a megabyte by default. If they refuse
// it, the limit is lowered: see Limits.CommitRefused.
const CommitBytes = 512 << 10

// OffsetBytes is the approximate size of one offset with the metadata of a snapshot.
const OffsetBytes = 250

// doubtfulBytes is the size from which a refused commit may have been too large although
// brokers do not say so: Kafka 4.1 answers UNKNOWN_SERVER_ERROR to one that is.
const doubtfulBytes = 64 << 10

// size is the approximate size of an offset in the batch, in bytes.
func (o *Offset) size(group string) int { return 90 + len(group) + len(o.Topic) + len(o.Metadata) }

func sizeOf(offsets []Offset, group string) (n int) {
	for i := range offsets {
		n += offsets[i].size(group)
	}
	return n
}

// byTopic yields the offsets topic by topic. They are grouped by topic already.
func byTopic(offsets []Offset) iter.Seq[[]Offset] {
	return func(yield func([]Offset) bool) {
		for len(offsets) > 0 {
			n := 1
			for n < len(offsets) && offsets[n].Topic == offsets[0].Topic {
				n++
			}
			if !yield(offsets[:n]) {
				return
			}
			offsets = offsets[n:]
		}
	}
}

// Put writes offsets, grouped by topic, into the request that a client is about to send.
// They replace the client's own offsets, which are the ends of what it polled and lack
// partitions that polled nothing.
func Put(offsets []Offset, into *kmsg.TxnOffsetCommitRequest) {
	into.Topics = into.Topics[:0]
	for same := range byTopic(offsets) {
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic, t.TopicID = same[0].Topic, same[0].ID
		for _, o := range same {
			p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = o.Partition, o.At, o.LeaderEpoch, &o.Metadata
			t.Partitions = append(t.Partitions, p)
		}
		into.Topics = append(into.Topics, t)
	}
}

// TooLargeCommit reports whether brokers refused a commit because of its size, or may have.
func TooLargeCommit(err error, size int) bool {
	return errors.Is(err, kerr.InvalidCommitOffsetSize) || TooLarge(err) || errors.Is(err, kerr.UnknownServerError) && size > doubtfulBytes
}

// Limits are brokers' limits, learnt from refusals. They outlive sessions.
type Limits struct {
	SizeAware bool // a record did not fit uncompressed; see size.go

	commit int                    // bytes of a commit
	batch  map[string]learntBatch // by output topic
}

// learntBatch is what refusals say of the batches of an output topic. It is void once the
// topic's own limit is another one.
type learntBatch struct {
	bytes      int // before compression
	configured int // the topic's own limit at that time; 0: not known
}

// NewLimits returns limits that know nothing yet.
func NewLimits() *Limits { return &Limits{commit: CommitBytes, batch: map[string]learntBatch{}} }

// Offsets returns how many offsets of a size fit into one commit.
func (l *Limits) Offsets(size int) int { return max(l.commit/size, 1) }

// Batch returns the most bytes that a batch of an output topic may have before compression.
// configured is the topic's own limit; 0: not known.
func (l *Limits) Batch(topic string, configured int) int {
	size := batchDefault
	if configured > 0 {
		size = configured
	}
	if l.batchLearnt(topic, configured) {
		size = min(size, l.batch[topic].bytes)
	}
	return size
}

// batchLearnt reports whether a refusal says that the topic's limit is lower than configured.
func (l *Limits) batchLearnt(topic string, configured int) bool {
	learnt, ok := l.batch[topic]
	return ok && learnt.configured == configured
}

// BatchRefused halves the limit of a topic whose broker refused a batch that was within it.
func (l *Limits) BatchRefused(topic string, configured int) {
	l.batch[topic] = learntBatch{bytes: l.Batch(topic, configured) / 2, configured: configured}
}

// ForgetBatch forgets what refusals said of a topic: it accepts larger records now.
func (l *Limits) ForgetBatch(topic string) { delete(l.batch, topic) }

// LimitCommit sets how many bytes a commit may have.
func (l *Limits) LimitCommit(bytes int) { l.commit = bytes }

// CommitRefused learns from a commit of n partitions that brokers refused for its size.
func (l *Limits) CommitRefused(reporter *fault.Reporter, cfg config.Config, n, size int, err error) error {
	if n <= 1 {
		return fault.Failed(fmt.Errorf("commit the offset of one partition in group %q: %w", cfg.Group, err),
			"raise the limit: "+fault.CommandsFor(cfg).Set("__consumer_offsets", fault.MaxMessageBytes, fmt.Sprint(batchDefault)))
	}
	l.LimitCommit(min(l.commit, size) / 2)
	reporter.Warn("a commit was too large; committing fewer partitions at once from now on", err, "group", cfg.Group, "most_partitions", n/2)
	return nil
}
