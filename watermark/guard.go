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
//
// What was refused does not travel. It matters only where it is read again, and
// whoever reads it again is told: see Recall.
//
// A guard that is switched off raises the limit to the end of time, once a record
// needs it; one that is switched on begins with a limit that lets nothing pass. Both
// are steps like any other. Where there is no room for one, the limit in force goes on
// judging until there is: the verdicts have to be those that the commit will give.
type Guard struct {
	Skew  time.Duration // 0: the guard is off and everything passes
	steps []Step        // by offset; the last one is in force
	// The smallest event time refused since the last step, if any was. Those may be
	// left out that will not be read again.
	refused Time
	any     bool
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

// Restore takes over the steps of a commit. What was judged by them and is read
// again goes to Recall, all of it, before anything is judged anew.
func (g *Guard) Restore(steps []Step) { g.steps, g.any = append(g.steps[:0], steps...), false }

// Steps returns the steps that are still needed, oldest first. The slice is
// the guard's own.
func (g *Guard) Steps() []Step { return g.steps }

// Future judges a record that is read for the first time; wall is the present
// wall clock. It may take a step.
func (g *Guard) Future(offset int64, t, wall Time) bool {
	if g.believes(offset, t, wall) {
		return false
	}
	g.refuse(t)
	return true
}

func (g *Guard) refuse(t Time) {
	if !g.any || t < g.refused {
		g.refused, g.any = t, true
	}
}

// Believes reports whether a time that a record says something else with, not
// its own, is no further in the future than a record may be. It may take a step,
// at from. Nobody asks for its verdict again.
func (g *Guard) Believes(from int64, t, wall Time) bool {
	if g.Skew > 0 && t > wall.Add(g.Skew) && t > g.Limit() {
		return false
	}
	return g.believes(from, t, wall)
}

func (g *Guard) believes(offset int64, t, wall Time) bool {
	if g.Skew <= 0 && len(g.steps) == 0 {
		return true
	}
	limit := Max // that a step is to have
	if g.Skew > 0 {
		if g.off() && !g.step(Step{offset, None}) {
			return true // switched on, and there is no room to say so
		}
		limit = wall.Add(g.Skew).Add(g.Skew / 4)
		// Whole milliseconds are shorter to write.
		if ms, ok := FromMillis(limit.Millis() + 1); ok {
			limit = ms
		}
	}
	switch last := len(g.steps) - 1; {
	case t <= g.Limit():
		return true
	case g.Skew > 0 && t > wall.Add(g.Skew):
		return false
	case last >= 0 && (!g.any || g.refused > limit):
		// Nothing has been refused that the higher limit lets pass: it gives the
		// verdicts of the last step too, and takes its place. So a stream without
		// records from the future has one step, however much is held.
		g.steps[last].Limit = limit
		if last > 0 && limit == Max && g.steps[last-1].Limit == Max {
			g.steps = g.steps[:last] // switched on and off again, and nothing was refused
		}
		return true
	}
	return g.step(Step{offset, limit})
}

// step takes a step, if there is room.
func (g *Guard) step(s Step) bool {
	if n := len(g.steps); n > 0 && g.steps[n-1].Offset == s.Offset {
		g.steps = g.steps[:n-1] // it has judged nothing
	}
	if len(g.steps) >= MaxSteps {
		return false
	}
	g.steps, g.any = append(g.steps, s), false
	return true
}

// Recall gives the verdict of Future for a record that was judged before the last
// commit, and takes note of it.
func (g *Guard) Recall(offset int64, t Time) (future bool) {
	future = g.WasFuture(offset, t)
	if n := len(g.steps); future && g.steps[n-1].Offset <= offset {
		g.refuse(t)
	}
	return future
}

// WasFuture gives the verdict of Recall. A record older than every step was judged
// while the guard was off.
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
	for n := len(g.steps); n > 1 && g.steps[n-2].Offset == next; n-- {
		g.steps = append(g.steps[:n-2], g.steps[n-1]) // it judges nothing
	}
}

// off reports whether the steps say that nothing is judged.
func (g *Guard) off() bool { return len(g.steps) == 0 || g.Limit() == Max }

// Limit returns the limit in force, None if there has never been one.
func (g *Guard) Limit() Time {
	if len(g.steps) == 0 {
		return None
	}
	return g.steps[len(g.steps)-1].Limit
}
