package txn

import (
	"context"
	"errors"
)

// Committer commits: exactly once or at least once.
type Committer interface {
	// Begin opens a transaction, if there are such.
	Begin(ctx context.Context) error
	// End ends what is open. All records have been acknowledged. With commit it commits
	// offsets together with the records; without, it undoes them, as far as that is
	// possible.
	End(ctx context.Context, offsets []Offset, commit bool) (Result, error)
	// Forget forgets a revocation: the next transaction is not to be aborted for it.
	// Nothing is open.
	Forget(ctx context.Context) error
	// Atomic reports whether records are seen only once they are committed.
	Atomic() bool
}

// Result is what became of what was open.
type Result int

// The results.
const (
	Committed Result = iota
	Moved            // committed, and meanwhile partitions of ours have moved to others
	Aborted          // undone: everything goes on from the commit before
)

// ErrOverdue says that a transaction had been open for longer than it may last: the brokers
// fenced us then, and nobody took our place.
var ErrOverdue = errors.New("the transaction timed out")
