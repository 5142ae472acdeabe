package txn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// EndPatience is the longest that ending a transaction takes when nothing is wrong: some
// milliseconds, or until other members have joined.
const EndPatience = 2 * time.Second

// Membership is what a transaction needs of the consumer group.
type Membership struct {
	Allow func() // allows rebalances, from now on
	Block func() // blocks them again, after those under way have ended
	// Moved reports whether partitions were revoked since the last Forget.
	Moved func() bool
}

// exactlyOnce commits records and offsets in one transaction.
type exactlyOnce struct {
	cfg      config.Config
	gts      *kgo.GroupTransactSession
	admin    *kadm.Client
	group    Membership
	reporter *fault.Reporter
	limits   *Limits
	retry    *retry

	completing, beginning, ending fault.Wait

	doubted int // large commits in a row that were aborted for an unknown reason
}

// Atomic implements Committer.
func (*exactlyOnce) Atomic() bool { return true }

// Begin implements Committer.
func (c *exactlyOnce) Begin(ctx context.Context, records bool) error {
	if !records {
		c.awaitCompletion(ctx)
	}
	defer c.reporter.Waits.Begin(c.beginning)()
	if err := c.gts.Begin(); err != nil {
		return fmt.Errorf("begin a transaction as %q: %w", c.cfg.TransactionalID(), err)
	}
	return nil
}

// End implements Committer.
func (c *exactlyOnce) End(ctx context.Context, offsets []Offset, commit bool) (Result, error) {
	try := kgo.TransactionEndTry(commit)
	empty := commit && len(offsets) == 0 // all its records were refused, and their partitions suspended
	if empty {
		// After a commit without offsets the client holds its locks for half a second.
		try = kgo.TryAbort
	}
	withOurs := kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		Put(offsets, req)
		return nil
	})
	committed, err := c.end(withOurs, try)
	size := sizeOf(offsets, c.cfg.Group)
	if c.group.Moved() && err == nil {
		if committed {
			return Moved, nil
		}
		return Aborted, nil
	}
	switch {
	case TooLargeCommit(err, size):
		return Aborted, c.limits.CommitRefused(c.reporter, c.cfg, len(offsets), size, err) // the client has aborted
	case err != nil:
		return Aborted, fault.Uncommittable(c.cfg, fmt.Errorf("end the transaction of %q: %w", c.cfg.TransactionalID(), err))
	case !committed && !empty:
		if try == kgo.TryCommit {
			c.onAbort(ctx, len(offsets), size)
		}
		return Aborted, nil
	}
	c.doubted = 0
	return Committed, nil
}

// awaitCompletion waits until brokers have completed the transaction before, which they go
// on with after they have answered its end. Until then they refuse whatever a new one begins
// with: CONCURRENT_TRANSACTIONS. The client sends records again until they are accepted, but
// takes refused offsets for a reason to abort. Since Kafka 4 (transactions of version 2) the
// offsets are what a transaction without records begins with; before, it is a request that
// the client tries again, and there is nothing to wait for.
//
// If brokers do not tell, the commit is tried.
func (c *exactlyOnce) awaitCompletion(ctx context.Context) {
	defer c.reporter.Waits.Begin(c.completing)()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransactionTimeout)
	defer cancel()
	pause := fault.Backoff{First: 5 * time.Millisecond, Longest: 200 * time.Millisecond}
	for !completed(c.admin.DescribeTransactions(ctx, c.cfg.TransactionalID())) && pause.Wait(ctx) == nil {
		c.reporter.Waits.Answered(kerr.ConcurrentTransactions)
	}
}

func completed(ts kadm.DescribedTransactions, err error) bool {
	for _, t := range ts {
		if err == nil && t.Err == nil && (t.State == "PrepareCommit" || t.State == "PrepareAbort") {
			return false
		}
	}
	return true
}

// onAbort handles a commit that the client aborted.
func (c *exactlyOnce) onAbort(ctx context.Context, offsets, size int) {
	err := WhyAborted(ctx, c.gts.Client(), c.cfg)
	c.reporter.Warn("a commit was aborted; going back to the last commit", err, "group", c.cfg.Group)
	c.retry.pending = true
	if size > doubtfulBytes {
		if c.doubted++; c.doubted > 1 {
			_ = c.limits.CommitRefused(c.reporter, c.cfg, offsets, size, err)
		}
	}
}

// WhyAborted returns why the client aborted a transaction that was to be committed. The
// client hides the coordinator's error, be it about the offsets or about the heartbeat that
// it sends after them. Nearly all are about our membership and the coordinator itself, so
// another heartbeat has the same answer. If it is accepted, the offsets were refused.
func WhyAborted(ctx context.Context, cl *kgo.Client, cfg config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, EndPatience)
	defer cancel()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.InstanceID = cfg.Group, &cfg.Instance
	req.MemberID, req.Generation = cl.GroupMetadata()
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("%w: its answer to a heartbeat: %w", fault.ErrOffsetsRefused, err)
	}
	return fmt.Errorf("%w: it accepts heartbeats, so it refused the offsets", fault.ErrOffsetsRefused)
}

// end ends the transaction. If the group has thrown us out, the client waits for a heartbeat
// that is not sent until the revocation callback has run, which waits for us to allow
// rebalances. So end allows them when it takes long, and the client then aborts. A
// transaction that is not ended within its timeout has been aborted by the brokers anyway.
func (c *exactlyOnce) end(ctx context.Context, try kgo.TransactionEndTry) (committed bool, err error) {
	defer c.reporter.Waits.Begin(c.ending)()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransactionTimeout)
	defer cancel()
	allowed := make(chan struct{})
	allow := time.AfterFunc(min(EndPatience, c.cfg.TransactionTimeout/4), func() { c.group.Allow(); close(allowed) })
	committed, err = c.gts.End(ctx, try)
	if !allow.Stop() {
		<-allowed
		c.group.Block()
	}
	return committed, err
}

// Forget implements Committer.
func (c *exactlyOnce) Forget(ctx context.Context) error {
	defer c.reporter.Waits.Begin(c.ending)()
	_, err := c.gts.End(ctx, kgo.TryAbort)
	return err
}

// overdue marks an error of a transaction that was open for too long.
func overdue(err error, open, most time.Duration) error {
	if err == nil || open <= most || errors.Is(err, ErrOverdue) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrOverdue, err)
}
