package proxy

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// heartbeat is how often a member shows that it lives. It is also how long a
// survivor may take to notice that another left: with the client's 3 s it
// took 2.07 s.
const heartbeat = 500 * time.Millisecond

// prompt are options that let a client go on soon after brokers were away. By
// default it asks where partitions are every 5 s at most; and it does so, and waits
// for it, whenever a batch has to be sent again, be it only because the brokers
// still end the transaction before (CONCURRENT_TRANSACTIONS). Its pauses between
// attempts grow to 5 s. After a broker had restarted, that came to 20 s and more.
//
// And it takes a connection that is closed at its first request for one to the
// wrong port, and fails. Behind a load balancer or a mesh that is how a broker that
// is away looks. So only the first contact fails; after that, runSession has such
// requests tried again (AlwaysRetryEOF), by another broker where any will do.
func prompt() []kgo.Opt {
	return []kgo.Opt{
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			const first, longest = 20 * time.Millisecond, 300 * time.Millisecond
			d := min(first<<min(tries, 8), longest)
			return d/2 + rand.N(d/2)
		}),
		kgo.RequestRetries(1000), // it is time that bounds them
	}
}

// clientOpts are the options of the consuming and producing client. The
// callbacks are the session's.
func (s *session) clientOpts() []kgo.Opt {
	cfg := s.cfg
	opts := append([]kgo.Opt{}, s.connection...)
	opts = append(opts,
		kgo.WithContext(s.life),
		kgo.ConsumerGroup(cfg.Group),
		kgo.InstanceID(cfg.Instance),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.RebalanceTimeout(s.rebalanceTimeout()),
		kgo.Balancers(s.owned),
		kgo.HeartbeatInterval(heartbeat),
		kgo.DisableAutoCommit(),

		// Rebalances wait until what has been polled is committed, so that
		// they find nothing to abort. OnPartitionsCallbackBlocked tells
		// that one is waiting.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { s.hurry() }),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.revoked),
		kgo.AdjustFetchOffsetsFn(s.position),

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
		kgo.WithPools(new(fetchPool)),
		kgo.WithHooks(fetchTimes{&s.trips}),
		kgo.MaxDecompressBatchBytes(decompressLimit(int64(cfg.Memory))),

		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(maxInFlight),
		kgo.MaxBufferedBytes(s.maxInFlight()),
		kgo.ProducerLinger(s.linger()),
		kgo.ProducerBatchMaxBytesFn(txn.ClientMaxBatch(s.limits, s.maxBatch, s.outputTopics())),
		txn.CompressionOpt(cfg, &s.codec),

		// What is refused for longer comes to us, with the brokers' reason.
		kgo.RecordRetries(produceTries),
		kgo.UnknownTopicRetries(2*produceTries),
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

const (
	// What is produced and not yet acknowledged, at the most; producing waits
	// there.
	maxInFlight      = 16 << 10
	maxInFlightBytes = 32 << 20
	// produceTries is how often the client sends a record again that brokers
	// refuse for now: for some 5 s, half of the shortest time that a
	// transaction lasts by default.
	produceTries = 30
)

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

// decompressLimit bounds what a batch may decompress to. Some kilobytes can become a
// gigabyte, and the process is not to be killed by what others write.
func decompressLimit(budget int64) int {
	return int(min(max(budget, 64<<20), mostDecompressed))
}

const mostDecompressed = 1 << 30

// maxInFlight lets a record pass that is as large as a request may be, where
// there are such.
func (s *session) maxInFlight() int {
	if s.limits.SizeAware {
		return txn.MostBatch + maxInFlightBytes
	}
	return maxInFlightBytes
}

// rebalanceTimeout is how long the others wait for a member that does not
// join again. Nobody can commit meanwhile, so it has to be shorter than a
// transaction may last. A static member that is slower keeps its partitions
// until the session timeout.
func (s *session) rebalanceTimeout() time.Duration {
	return min(s.cfg.SessionTimeout, s.cfg.TransactionTimeout/2)
}

// fetchBytes bounds what one broker sends ahead of what is read: memory beside
// the budget, so it keeps a proportion to it.
func fetchBytes(budget int64) int32 {
	return int32(min(max(budget/8, 1<<20), 8<<20))
}

// clientLog passes on what the client has to say. What matters of it comes back
// as an error and is told once, by us; the rest is for debugging.
type clientLog struct{ log *slog.Logger }

func (l clientLog) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	l.log.Debug("kafka client: "+msg, append(keyvals, "client_level", level.String())...)
}
