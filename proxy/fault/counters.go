package fault

import (
	"sync/atomic"
	"time"
)

// Counters count events since the process began. They change per session, commit and
// error, never per record.
type Counters struct {
	Errors     [classes]atomic.Int64
	Sessions   atomic.Int64 // that passed the preflight
	Commits    atomic.Int64
	Aborts     atomic.Int64 // transactions aborted; without transactions: times that reading went back to the commit
	Rebalances atomic.Int64 // generations of the group that we were part of
	fencings   atomic.Int64 // errors that say that another process took our place
	Lost       atomic.Int64 // records that the source lost, where that is accepted
	Shed       atomic.Int64 // headers left out of records that were too large
	Pauses     atomic.Int64 // times that a partition was paused for slower ones
	Drops      atomic.Int64 // duplicates that went to no output
}

// Counts are the counters at one moment.
type Counts struct {
	Broker, Network, Record int64 // errors by class
	Sessions                int64
	Commits, Aborts         int64
	Rebalances, Fencings    int64
	Lost, Shed              int64
	Pauses, Dropped         int64
	Throttled               Throttled
}

// Snapshot returns the present counts, without Throttled.
func (c *Counters) Snapshot() Counts {
	return Counts{
		Broker: c.Errors[Broker].Load(), Network: c.Errors[Network].Load(), Record: c.Errors[Record].Load(),
		Sessions: c.Sessions.Load(), Commits: c.Commits.Load(), Aborts: c.Aborts.Load(),
		Rebalances: c.Rebalances.Load(), Fencings: c.fencings.Load(), Lost: c.Lost.Load(), Shed: c.Shed.Load(),
		Pauses: c.Pauses.Load(), Dropped: c.Drops.Load(),
	}
}

// Throttled is the total time that quotas held requests back, by kind of request.
type Throttled struct{ Produce, Fetch, Other time.Duration }
