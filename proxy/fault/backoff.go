package fault

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a growing pause between retries. Half of each pause is random, so that
// instances which failed together do not retry together.
type Backoff struct {
	First   time.Duration // the next pause
	Longest time.Duration
}

// Wait pauses, and doubles the next pause. It returns the error of ctx if that is done first.
func (b *Backoff) Wait(ctx context.Context) error {
	d := b.First
	b.First = min(2*d, b.Longest)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
