package verify

import "slices"

// lateMarks are the watermarks that late records of an epoch name, by source offset. A
// late record is judged by the watermark of that moment, which never goes back in an
// epoch. So of the source records behind it, only those above that watermark are on
// time:
//
// At least once that does not hold: what a process put out after its last commit is
// judged again by another, whose watermark memory or the wall clock may have moved.
//
//	source offset    3          5             8           9
//	                 on time    late, W = 70  on time     on time
//	event time       60         55            71 or more  71 or more
type lateMarks struct {
	epoch int64
	list  []lateMark // rising in both
	prune int        // when the list is longer than that
}

type lateMark struct{ source, ms int64 }

// noteMark takes note of a watermark that a late record was judged by.
func (c *Checker) noteMark(source, ms int64) {
	m := &c.marks
	if m.epoch != c.out.Epoch {
		m.epoch, m.list = c.out.Epoch, m.list[:0]
	}
	if n := len(m.list); n > 0 && (source <= m.list[n-1].source || ms <= m.list[n-1].ms) {
		return
	}
	m.list = append(m.list, lateMark{source, ms})
	if len(m.list) > max(m.prune, 1024) {
		c.pruneMarks()
	}
}

// pruneMarks forgets the marks below all source records that may still come out.
func (c *Checker) pruneMarks() {
	m, lowest := &c.marks, c.rawNext
	for source := range c.raws {
		lowest = min(lowest, source)
	}
	if i := m.before(lowest); i > 0 {
		m.list = append(m.list[:0], m.list[i:]...)
	}
	m.prune = 2 * len(m.list)
}

// before returns the index of the last mark below a source offset, -1 if there is none.
func (m *lateMarks) before(source int64) int {
	i, _ := slices.BinarySearchFunc(m.list, source, func(l lateMark, source int64) int { return int(l.source - source) })
	return i - 1
}

// onTime judges an ordered record by the late records from before it.
func (c *Checker) onTime(p place) {
	m := &c.marks
	if m.epoch != p.epoch || c.rules.AtLeastOnce {
		return
	}
	i := m.before(p.Offset)
	if i < 0 {
		return
	}
	l := m.list[i]
	if ms := p.Time.Millis(); ms < l.ms || ms == l.ms && int64(p.Time)%1e6 == 0 {
		c.settingFault(KindWatermarkLie, "event time %d ns is not above watermark %d ms, which the late record of source offset %d names", int64(p.Time), l.ms, l.source)
	}
}
