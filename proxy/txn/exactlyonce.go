package txn

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	group    Membership
	reporter *fault.Reporter
	limits   *Limits
	retry    *retry

	beginning, ending fault.Wait
	doubted           int // large commits in a row that were aborted for an unknown reason
}

// Atomic implements Committer.
func (*exactlyOnce) Atomic() bool { return true }

// Begin implements Committer.
func (c *exactlyOnce) Begin(context.Context) error {
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
			c.onAbort(len(offsets), size)
		}
		return Aborted, nil
	}
	c.doubted = 0
	return Committed, nil
}

// onAbort handles a commit that the client aborted. The client hides the reason: refused
// offsets, UNKNOWN_SERVER_ERROR, or a refused heartbeat afterwards.
func (c *exactlyOnce) onAbort(offsets, size int) {
	c.reporter.Warn("a commit was aborted; going back to the last commit", fault.ErrOffsetsRefused, "group", c.cfg.Group)
	c.retry.pending = true
	if size > doubtfulBytes {
		if c.doubted++; c.doubted > 1 {
			_ = c.limits.CommitRefused(c.reporter, c.cfg, offsets, size, fault.ErrOffsetsRefused)
		}
	}
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
