package reorder

import "github.com/tidemarkhq/tidemark/watermark"

// Engine holds the partitions that one process has been assigned, and the one
// thing they share: the memory they may use together.
type Engine struct {
	opts   Options
	budget int64
	bytes  int64
	now    watermark.Instant
	pool   chunkPool
	parts  []*Partition
}

// NewEngine returns an engine without partitions. budget is what the records
// held may take, in bytes.
func NewEngine(opts Options, budget int64) *Engine {
	return &Engine{opts: opts, budget: budget, pool: chunkPool{flight: 1}}
}

// Tick tells the engine the monotonic time.
func (e *Engine) Tick(now watermark.Instant) { e.now = now }

// Revoke forgets a partition and everything it holds.
func (e *Engine) Revoke(p *Partition) {
	for i, q := range e.parts {
		if q == p {
			e.parts = append(e.parts[:i], e.parts[i+1:]...)
			e.bytes -= p.bytes
			return
		}
	}
}

// Crowded reports whether more is held than the budget allows.
func (e *Engine) Crowded() bool { return e.bytes > e.budget }

// Relieve makes the partition that holds most release its oldest records
// before their time, and returns it, for Next to be called; nil if none can.
// What then comes behind the forced watermark is late as Overflow.
func (e *Engine) Relieve() *Partition {
	var most *Partition
	for _, p := range e.parts {
		if p.replay == nil && p.count > 0 && (most == nil || p.bytes > most.bytes) {
			most = p
		}
	}
	if most != nil {
		most.force()
	}
	return most
}

// Flight gives a number, larger than the last, to what the partitions put out from
// now on. They begin with 1.
func (e *Engine) Flight(number uint64) { e.pool.flight = number }

// Landed says that no body that was put out in this flight or an earlier one
// is in use any more. Their memory is used again.
func (e *Engine) Landed(number uint64) { e.pool.landed(number) }

// Bytes returns what the records held take, in bytes.
func (e *Engine) Bytes() int64 { return e.bytes }
