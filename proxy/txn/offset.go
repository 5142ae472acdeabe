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

// Offset is what a commit says of one partition.
type Offset struct {
	Topic       string
	ID          [16]byte // of the topic; zero before Kafka 2.8
	Partition   int32
	At          int64 // to be read next by whoever takes over
	LeaderEpoch int32 // of the record before; -1: not known
	Metadata    string
}

// CommitBytes is how large a commit may be. Brokers write its offsets as one batch into
// __consumer_offsets, which takes a megabyte by default. Where they take less, less is
// tried: see Limits.commitRefused.
const CommitBytes = 512 << 10

// OffsetBytes is about what one offset with the metadata of a snapshot takes of that.
const OffsetBytes = 250

// doubtfulBytes is from which size on a commit may have been refused for its size although
// brokers do not say so. Kafka 4.1 answers a commit that is too large with
// UNKNOWN_SERVER_ERROR.
const doubtfulBytes = 64 << 10

// size is about what an offset takes in the batch.
func (o *Offset) size(group string) int { return 90 + len(group) + len(o.Topic) + len(o.Metadata) }

func sizeOf(offsets []Offset, group string) (n int) {
	for i := range offsets {
		n += offsets[i].size(group)
	}
	return n
}

// byTopic yields the offsets of one topic after the other. They are grouped.
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
// They replace the client's own, the ends of what it polled; that also brings in
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

// TooLargeCommit reports whether brokers refused a commit of a size for that, or may have.
func TooLargeCommit(err error, size int) bool {
	return errors.Is(err, kerr.InvalidCommitOffsetSize) || TooLarge(err) || errors.Is(err, kerr.UnknownServerError) && size > doubtfulBytes
}

// Limits are the limits of brokers that have been learnt from refusals. They outlive
// sessions.
type Limits struct {
	SizeAware bool // a record was met that does not fit uncompressed; see size.go

	commit int            // bytes of a commit
	batch  map[string]int // bytes of a batch before compression, by output topic
}

// NewLimits returns limits that know nothing yet.
func NewLimits() *Limits { return &Limits{commit: CommitBytes, batch: map[string]int{}} }

// Offsets returns how many offsets of a size may go in one commit.
func (l *Limits) Offsets(size int) int { return max(l.commit/size, 1) }

// Batch returns the most bytes that a batch of an output topic may have before compression.
// configured is the topic's own limit; 0: not known.
func (l *Limits) Batch(topic string, configured int) int {
	size := batchDefault
	if configured > 0 {
		size = configured
	}
	if learnt, ok := l.batch[topic]; ok {
		size = min(size, learnt)
	}
	return max(size, LeastBatch)
}

// BatchRefused halves the limit of a topic whose broker refused a batch that was within it.
func (l *Limits) BatchRefused(topic string, limit int) { l.batch[topic] = max(limit/2, LeastBatch) }

// LimitCommit sets how many bytes a commit may have.
func (l *Limits) LimitCommit(bytes int) { l.commit = bytes }

// CommitRefused learns from a commit of n partitions that brokers refused for its size.
func (l *Limits) CommitRefused(reporter *fault.Reporter, cfg config.Config, n, size int, err error) error {
	if n <= 1 {
		return fault.Failed(fmt.Errorf("commit the offset of one partition in group %q: %w", cfg.Group, err),
			"raise the limit: "+fault.CommandsFor(cfg).Set("__consumer_offsets", fault.MaxMessageBytes, fmt.Sprint(batchDefault)))
	}
	l.LimitCommit(min(l.commit, size) / 2)
	reporter.Warn("a commit was too large; trying with fewer partitions at once", err, "group", cfg.Group, "most_partitions", n/2)
	return nil
}
