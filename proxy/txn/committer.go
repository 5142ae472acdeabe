package txn

import (
	"context"
	"errors"
)

// Committer commits: exactly once or at least once.
type Committer interface {
	// Begin opens a transaction, where there are transactions. records: it begins with a
	// record; otherwise, there are only offsets to commit.
	Begin(ctx context.Context, records bool) error
	// End ends what is open, after all records were acknowledged. With commit it commits
	// offsets together with the records; without, it aborts them, as far as possible.
	End(ctx context.Context, offsets []Offset, commit bool) (Result, error)
	// Forget forgets a revocation, so that it does not abort the next transaction. Nothing
	// is open.
	Forget(ctx context.Context) error
	// Atomic reports whether readers see records only once they are committed.
	Atomic() bool
}

// Result is what became of what was open.
type Result int

// The results.
const (
	Committed Result = iota
	Moved            // committed, and partitions of ours were revoked meanwhile
	Aborted          // aborted: everything goes on from the commit before
)

// ErrOverdue says that a transaction was open for longer than its timeout: the brokers have
// fenced us for that, and no other process took our place.
var ErrOverdue = errors.New("the transaction timed out")
