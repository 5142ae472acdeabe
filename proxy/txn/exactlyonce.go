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

// EndPatience is how long ending a transaction takes at the most when all is well: some
// milliseconds, or until other members have joined.
const EndPatience = 2 * time.Second

// Membership is what a transaction needs of the consumer group.
type Membership struct {
	Allow func() // lets rebalances through, from now on
	Block func() // holds them back again, once those under way are through
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
	doubted           int // large commits in a row that were undone for an unknown reason
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
	empty := commit && len(offsets) == 0 // what was written in it was refused, and its partition dropped
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
			c.undone(len(offsets), size)
		}
		return Aborted, nil
	}
	c.doubted = 0
	return Committed, nil
}

// undone takes note of a commit that the client undid. It keeps the reason to itself: a
// refusal of the offsets, UNKNOWN_SERVER_ERROR, or a refusal of the heartbeat after.
func (c *exactlyOnce) undone(offsets, size int) {
	c.reporter.Warn("a commit was undone; going back to the one before", fault.ErrOffsetsRefused, "group", c.cfg.Group)
	c.retry.pending = true
	if size > doubtfulBytes {
		if c.doubted++; c.doubted > 1 {
			_ = c.limits.CommitRefused(c.reporter, c.cfg, offsets, size, fault.ErrOffsetsRefused)
		}
	}
}

// end ends the transaction. When the group has thrown us out, the client waits for a
// heartbeat that nobody sends until the callback for it has run, which waits for us to let
// rebalances through; so that is done when the end takes long, and the client then aborts.
// Whatever takes longer than a transaction may last has been aborted anyway.
func (c *exactlyOnce) end(ctx context.Context, try kgo.TransactionEndTry) (committed bool, err error) {
	defer c.reporter.Waits.Begin(c.ending)()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransactionTimeout)
	defer cancel()
	allowed := make(chan struct{})
	let := time.AfterFunc(min(EndPatience, c.cfg.TransactionTimeout/4), func() { c.group.Allow(); close(allowed) })
	committed, err = c.gts.End(ctx, try)
	if !let.Stop() {
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
