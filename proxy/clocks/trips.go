package clocks

import (
	"sync"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Trips measures how long requests take, over the last whole Window. It is safe for
// concurrent use.
type Trips struct {
	mu    sync.Mutex
	began watermark.Instant
	now   spreading
	last  Spread
	whole bool
}

// Add adds a request.
func (t *Trips) Add(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.add(took)
}

// Spread returns the durations at now.
func (t *Trips) Spread(now watermark.Instant) Spread {
	t.mu.Lock()
	defer t.mu.Unlock()
	over := now.Sub(t.began) >= Window
	if t.whole && !over {
		return t.last
	}
	s := t.now.spread()
	if over {
		t.whole, t.last, t.began = true, s, now
		t.now.reset()
	}
	return s
}
