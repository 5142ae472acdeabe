package group

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// Heartbeat is how often a member shows that it lives. It is also how long a
// survivor may take to notice that another left: with the client's 3 s it
// took 2.07 s.
const Heartbeat = 500 * time.Millisecond

// PromptRetries are options that let a client go on soon after brokers were away. By
// default it asks where partitions are every 5 s at most; and it does so, and waits
// for it, whenever a batch has to be sent again, be it only because the brokers
// still end the transaction before (CONCURRENT_TRANSACTIONS). Its pauses between
// attempts grow to 5 s. After a broker had restarted, that came to 20 s and more.
//
// And it takes a connection that is closed at its first request for one to the
// wrong port, and fails. Behind a load balancer or a mesh that is how a broker that
// is away looks. So only the first contact fails; after that, a session has such
// requests tried again (AlwaysRetryEOF), by another broker where any will do.
func PromptRetries() []kgo.Opt {
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

// rebalanceTimeout is how long the others wait for a member that does not
// join again. Nobody can commit meanwhile, so it has to be shorter than a
// transaction may last. A static member that is slower keeps its partitions
// until the session timeout.
func rebalanceTimeout(cfg config.Config) time.Duration {
	return min(cfg.SessionTimeout, cfg.TransactionTimeout/2)
}

// DecompressLimit bounds what a batch may decompress to. Some kilobytes can become a
// gigabyte, and the process is not to be killed by what others write.
func DecompressLimit(budget int64) int {
	return int(min(max(budget, 64<<20), MostDecompressed))
}

const MostDecompressed = 1 << 30

// ClientLog passes on what the client has to say. What matters of it comes back
// as an error and is told once, by us; the rest is for debugging.
type ClientLog struct{ Logger *slog.Logger }

func (l ClientLog) Level() kgo.LogLevel {
	if l.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

func (l ClientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	l.Logger.Debug("kafka client: "+msg, append(keyvals, "client_level", level.String())...)
}

// Contact is the clients of a session that are not members of the group.
type Contact struct {
	First  *kgo.Client        // fails where a connection is closed at its first request: see PromptRetries
	Admin  *kgo.Client        // tries again there, too
	Cancel context.CancelFunc // ends what they are doing

	unhook func() bool
}

// OpenContact opens both. When hard is done, they have LeaveTime left: the client does not
// look at the context of a request while it opens a connection, but at its own.
func OpenContact(hard context.Context, connection []kgo.Opt) (*Contact, error) {
	life, cancel := context.WithCancel(context.Background())
	connection = append(slices.Clip(connection), kgo.WithContext(life))
	first, err := kgo.NewClient(connection...)
	if err != nil {
		cancel()
		return nil, fault.Usage(err, "")
	}
	admin, err := kgo.NewClient(append(connection, kgo.AlwaysRetryEOF())...)
	if err != nil {
		first.Close()
		cancel()
		return nil, fault.Usage(err, "")
	}
	unhook := context.AfterFunc(hard, func() { time.AfterFunc(LeaveTime, cancel) })
	return &Contact{First: first, Admin: admin, Cancel: cancel, unhook: unhook}, nil
}

// Close closes both.
func (c *Contact) Close() {
	c.Admin.Close()
	c.First.Close()
	c.unhook()
	c.Cancel()
}
