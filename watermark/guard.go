package watermark

import "time"

// Guard keeps records from the future from moving the watermark. Whether a
// record is "too far in the future" is a question about the wall clock, and
// the answer must come out the same when the record is read again after a
// crash. So the guard judges by a limit of its own, which moves in steps:
//
//	                       limit          wall + skew
//	-------------------------|-----------------|------ event time
//	       accepted          |    raises the   |  future
//	                         |    limit first  |
//
// A raised limit stands at wall + skew + skew/4, so that at most one step is
// taken in skew/4 of wall time. A step is taken at a record: steps are
// (offset, limit) pairs, and those that records still owed were judged by
// travel in the commit. Steps between which nothing was refused are one. They
// hold limits rather than clock readings, so that a changed skew does not
// change a verdict that has been given.
type Guard struct {
	Skew  time.Duration // 0: the guard is off and everything passes
	steps []Step        // by offset; the last one is in force
	// The smallest event time refused since the last step; None when that is
	// not known.
	refused Time
}

// Step says that from the record at Offset on, an event time above Limit is
// in the future.
type Step struct {
	Offset int64
	Limit  Time
}

// MaxSteps bounds the steps that a commit has to carry. When there is no room
// for another, the limit stays and judges the record.
const MaxSteps = 32

// Restore takes over the steps of a commit. From the record at next on, which
// nobody has judged yet, the guard's own Skew holds: one that was switched off
// since then, or on, says so by a step of its own.
func (g *Guard) Restore(steps []Step, next int64) {
	g.steps, g.refused = append(g.steps[:0], steps...), None
	on, was := g.Skew > 0, len(steps) > 0 && g.limit() < Max
	if on == was {
		return
	}
	s := Step{Offset: next, Limit: Max}
	if on {
		s.Limit = None
	}
	if n := len(g.steps); n > 0 && g.steps[n-1].Offset == next {
		g.steps = g.steps[:n-1] // it has judged nothing
	}
	g.steps, g.refused = append(g.steps, s), Max
}

// Steps returns the steps that are still needed, oldest first. The slice is
// the guard's own.
func (g *Guard) Steps() []Step { return g.steps }

// Future judges a record that is read for the first time; wall is the present
// wall clock. It may take a step.
func (g *Guard) Future(offset int64, t, wall Time) bool {
	if g.Skew <= 0 || t <= g.limit() {
		return false
	}
	if t > wall.Add(g.Skew) {
		g.refused = min(g.refused, t)
		return true
	}
	limit := wall.Add(g.Skew).Add(g.Skew / 4)
	// Whole milliseconds are shorter to write.
	if ms, ok := FromMillis(limit.Millis() + 1); ok {
		limit = ms
	}
	// Where nothing has been refused that the higher limit lets pass, it gives
	// the verdicts of the last step too and takes its place. So a stream
	// without records from the future has one step, however much is held.
	switch last := len(g.steps) - 1; {
	case last >= 0 && g.refused > limit:
		g.steps[last].Limit = limit
	case len(g.steps) >= MaxSteps:
		g.refused = min(g.refused, t)
		return true
	default:
		g.steps, g.refused = append(g.steps, Step{Offset: offset, Limit: limit}), Max
	}
	return false
}

// Believes reports whether a time that a record says something else with, not
// its own, is no further in the future than a record may be. It may take a step,
// at from. Nobody asks for its verdict again.
func (g *Guard) Believes(from int64, t, wall Time) bool {
	if g.Skew > 0 && t > g.limit() && t > wall.Add(g.Skew) {
		return false
	}
	return !g.Future(from, t, wall)
}

// WasFuture gives the verdict of Future for a record that was judged before
// the last commit. A record older than every step was judged while the guard
// was off.
func (g *Guard) WasFuture(offset int64, t Time) bool {
	for i := len(g.steps) - 1; i >= 0; i-- {
		if g.steps[i].Offset <= offset {
			return t > g.steps[i].Limit
		}
	}
	return false
}

// Forget drops the steps that no record at or after offset was judged by.
func (g *Guard) Forget(offset int64) {
	keep := 0
	for keep+1 < len(g.steps) && g.steps[keep+1].Offset <= offset {
		keep++
	}
	if keep > 0 {
		g.steps = append(g.steps[:0], g.steps[keep:]...)
	}
}

// Rewind says that next is read next although offsets beyond it have been
// judged: the log has lost them. What takes their place is judged by the limit
// in force.
func (g *Guard) Rewind(next int64) {
	for i := range g.steps {
		g.steps[i].Offset = min(g.steps[i].Offset, next)
	}
}

func (g *Guard) limit() Time {
	if len(g.steps) == 0 {
		return None
	}
	return g.steps[len(g.steps)-1].Limit
}
