package reorder

// Whoever takes over several partitions may find that what they hold together is more
// than the budget, and nothing of what is being read again can be released before all
// of it is there. So while memory is short they are read again one after another: all
// but one give up what they have found so far, and begin anew later. What is held is
// then never more than the budget and what the one replay needs.
//
//	            budget
//	-------------|
//	a====b====c==|      more is held than may be: b and c give way
//	a==========  |      a is read to its end, and goes on
//	a==========b=|      b begins again, and what a holds makes room as usual
//
// As long as there is room, all are read again at once.

// Yield returns a replaying partition that has given up what it had found again, for
// want of memory; nil if none has to: there is room, or only one is being read again.
// The partition is not to be stepped until Resume returns it, and begins at its Low.
func (e *Engine) Yield() *Partition {
	if !e.Crowded() {
		return nil
	}
	var least *Partition
	replaying := 0
	for _, p := range e.parts {
		if p.replay == nil || p.waits {
			continue
		}
		replaying++
		if least == nil || p.bytes < least.bytes {
			least = p
		}
	}
	if replaying < 2 {
		return nil
	}
	e.bytes -= least.bytes
	least.begin(e, *least.replay, e.now)
	least.waits = true
	return least
}

// Resume returns a partition that had to wait and is to be read again now; nil if
// another is being read, or none waits.
func (e *Engine) Resume() *Partition {
	var next *Partition
	for _, p := range e.parts {
		switch {
		case p.replay == nil:
		case !p.waits:
			return nil
		case next == nil:
			next = p
		}
	}
	if next != nil {
		next.waits = false
	}
	return next
}

// Waits reports whether a partition that is being read again waits for memory.
func (p *Partition) Waits() bool { return p.waits }
