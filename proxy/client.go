package proxy

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// clientOpts are the options of the consuming and producing client. The
// callbacks are the session's.
func (s *session) clientOpts() []kgo.Opt {
	cfg := s.cfg
	opts := append([]kgo.Opt{}, s.connection...)
	opts = append(opts, s.member.Options()...)
	opts = append(opts,
		kgo.ConsumeTopics(cfg.Topics...),

		// Where to begin is never left to the client: a reset policy turns
		// lost records into skipped or repeated ones.
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Control records are part of the position: without them a
		// partition that ends in one never seems to have been read to its end.
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchBytes(int64(cfg.Memory))),
		kgo.FetchMaxPartitionBytes(partitionBytes),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.WithPools(new(group.FetchPool)),
		kgo.WithHooks(group.FetchTimes{Trips: &s.trips}),
		kgo.MaxDecompressBatchBytes(group.DecompressLimit(int64(cfg.Memory))),

		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(txn.MaxInFlight),
		kgo.MaxBufferedBytes(s.maxInFlight()),
		kgo.ProducerLinger(s.linger()),
		kgo.ProducerBatchMaxBytesFn(txn.ClientMaxBatch(s.limits, s.maxBatch, s.outputTopics())),
		txn.CompressionOpt(cfg, &s.codec),

		// What is refused for longer comes to us, with the brokers' reason.
		kgo.RecordRetries(txn.ProduceTries),
		kgo.UnknownTopicRetries(2*txn.ProduceTries),
	)
	if cfg.Delivery == config.ExactlyOnce {
		opts = append(opts,
			kgo.TransactionalID(cfg.TransactionalID()),
			kgo.TransactionTimeout(cfg.TransactionTimeout))
	} else {
		// What was sent to a broker that died would else be waited for until the
		// partition has a leader again, and all other partitions with it. It may
		// come twice, which is what this mode is about.
		opts = append(opts, kgo.AllowIdempotentProduceCancellation())
	}
	return opts
}

// outputTopics returns the names of all outputs.
func (s *session) outputTopics() (names []string) {
	for _, t := range s.topics {
		names = append(names, t.Ordered, t.Late)
	}
	return names
}

// linger is how long a batch may wait to be filled: the larger the batches, the
// less they cost here and at the broker. Inside a transaction nobody sees a record
// before the commit, and a commit does not wait for batches to fill; so all that
// matters is that most has been sent by then. Without transactions
// a record is seen as soon as it arrives.
func (s *session) linger() time.Duration {
	if s.cfg.Delivery != config.ExactlyOnce {
		return time.Millisecond
	}
	return min(s.cfg.CommitInterval/4, 25*time.Millisecond)
}

// maxInFlight lets a record pass that is as large as a request may be, where
// there are such.
func (s *session) maxInFlight() int {
	if s.limits.SizeAware {
		return txn.MostBatch + txn.MaxInFlightBytes
	}
	return txn.MaxInFlightBytes
}

// fetchBytes bounds what one broker sends ahead of what is read: memory beside
// the budget, so it keeps a proportion to it.
func fetchBytes(budget int64) int32 {
	return int32(min(max(budget/8, 1<<20), 8<<20))
}
