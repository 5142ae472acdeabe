package status

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Totals count what became of the records of a partition since the process began. Only
// Carried and Held ever decrease, and at every commit
//
//	Read + Carried = Ordered + late + Dropped + Lost + Held
//
// Held comes from the engine, and the rest is counted where it happens, so the equation
// checks one against the other.
type Totals struct {
	Read    int64 // judged for the first time
	Carried int64 // held when the partition was taken over, less those held when it was given up
	Ordered int64 // to the ordered topic
	Late    [reorder.Duplicate + 1]int64
	Dropped int64 // duplicates that went to no output
	Lost    int64 // held, but missing from the source when they were read again
	Held    int64 // read, and in no output yet
	Untimed int64 // of Read: without an event time of their own, and so in no measure of disorder

	// Of Late[BehindWatermark]: those that are late because a record leapt (see clocks.Leap), and how
	// far in seconds these and all of them were behind.
	Leapt             int64
	LeaptBy, BehindBy float64
}

// AllLate returns how many records went to the late topic.
func (t *Totals) AllLate() (n int64) {
	for _, k := range t.Late {
		n += k
	}
	return n
}

// Unaccounted returns how many records are missing from the equation: 0, unless
// Tidemark has a bug.
func (t *Totals) Unaccounted() int64 {
	return t.Read + t.Carried - t.Ordered - t.AllLate() - t.Dropped - t.Lost - t.Held
}

// Ledger keeps the totals of one partition for the life of the process, across sessions
// and while other instances own the partition.
type Ledger struct {
	Pending   Totals // with what is not committed yet
	Committed Totals
	Disorder  Histogram     // how far behind the newest event time records came; committed
	Farthest  time.Duration // how far the farthest late record was behind the watermark

	pendingDisorder Histogram
	recent          recent

	stretches, pendingStretches stretches // of late records, since they were last reported
	reports                     [reorder.Duplicate + 1]lateReport

	// DecidedBy counts the records that each source of event times decided about; the last
	// number is for those that have none. Committed, and what is not.
	DecidedBy, pendingDecided []int64

	// What is known of its event times.
	Fitting clocks.Fitting // whether they fit other clocks
	Misfit  string         // what is probably wrong with them, and what to do; empty: nothing
	Invalid Invalid        // the last record without one
	// The same of watermarks that records carry.
	MarkerFitting clocks.Fitting
	MarkerMisfit  string
	NoMarkers     string // what to do about records that carry none; empty: they do

	EpochsOften time.Time // when an epoch began last that was the third within a minute

	marked  time.Time // when rates were last computed,
	at      Totals    // and from what
	ordered float64   // records a second, since then
	late    [reorder.Duplicate + 1]float64
}

// Commit moves everything counted so far to Committed.
func (l *Ledger) Commit() {
	l.recent.commit(time.Now(), &l.Committed, &l.Pending)
	if l.Committed.Read != l.Pending.Read { // it is large, and changes only with Read
		l.Disorder = l.pendingDisorder
		l.DecidedBy = append(l.DecidedBy[:0], l.pendingDecided...)
	}
	l.Committed, l.stretches = l.Pending, l.pendingStretches
}

// Abort discards what is not committed.
func (l *Ledger) Abort() {
	if l.Committed.Read != l.Pending.Read {
		l.pendingDisorder = l.Disorder
		copy(l.pendingDecided, l.DecidedBy)
		clear(l.pendingDecided[len(l.DecidedBy):])
	}
	l.Pending, l.pendingStretches = l.Committed, l.stretches
}

// Lose counts held records that are gone from the source. n may be negative: if event times
// have changed, a replay holds more records than the commit says. Those were never counted
// as read, so they count as carried over.
func (l *Ledger) Lose(n int64) {
	l.Pending.Lost += max(n, 0)
	l.Pending.Carried += max(-n, 0)
}

// Judged counts a record with event time t, judged for the first time. newest was the
// newest event time before it.
func (l *Ledger) Judged(newest, t watermark.Time, v reorder.Verdict) {
	l.Pending.Read++
	if v == reorder.OnTime || v == reorder.BehindWatermark || v == reorder.Overflow {
		l.pendingDisorder.observe(newest.Since(t), 1)
	}
}

// JudgedUntimed counts a record without an event time of its own, judged for the first
// time. It says nothing of disorder.
func (l *Ledger) JudgedUntimed(v reorder.Verdict) {
	l.Pending.Read++
	if v == reorder.OnTime {
		l.Pending.Untimed++
	}
}

// Decided counts a record whose event time one of n sources decided about: in the order of
// timestamp.Extractor.Sources.
func (l *Ledger) Decided(source, n int) {
	if len(l.pendingDecided) < n {
		l.pendingDecided = append(l.pendingDecided, make([]int64, n-len(l.pendingDecided))...)
	}
	l.pendingDecided[source]++
}

// rates returns records per second since it was last computed, at most once per PublishEvery.
func (l *Ledger) rates(now time.Time) (ordered float64, late [reorder.Duplicate + 1]float64) {
	if since := now.Sub(l.marked); since >= PublishEvery {
		l.ordered = float64(l.Committed.Ordered-l.at.Ordered) / since.Seconds()
		for v := range l.late {
			l.late[v] = float64(l.Committed.Late[v]-l.at.Late[v]) / since.Seconds()
		}
		l.marked, l.at = now, l.Committed
	}
	return l.ordered, l.late
}

// recent is what became of records lately.
type recent struct {
	judged time.Time // when the last records were read
	began  time.Time // when the last mark was made
	marks  [2]Totals // of half a window ago, and of the one before
	moved  time.Time // when records came out last, or nothing was held
}

// half is half of the window that recent has. It goes on only while records are read: after a
// silence it still shows the records before. Where few come it is longer, up to longestHalf, so
// that there are enough of them to say something.
const (
	half        = 30 * time.Second
	longestHalf = 5 * time.Minute
)

func (r *recent) commit(now time.Time, was, is *Totals) {
	if is.Read != was.Read {
		r.judged = now
		if since := now.Sub(r.began); since >= longestHalf || since >= half && was.Read-r.marks[0].Read >= config.EnoughRecords {
			r.began, r.marks = now, [2]Totals{*was, r.marks[0]}
		}
	}
	if is.Ordered != was.Ordered || was.Held == 0 || is.Held == 0 || r.moved.IsZero() {
		r.moved = now
	}
}

// Recent is what became of the records of a partition lately.
type Recent struct {
	Read int64                        // in the last minute in which there were any, or longer where few come
	Late [reorder.Duplicate + 1]int64 // of these; what was late and held before is among them

	Behind Behind // how those came that are behind the watermark

	Judged time.Time // when the last of them was committed
	Moved  time.Time // when records came out last, or nothing was held
}

// Recent returns what became of records lately.
func (l *Ledger) Recent() Recent {
	from := &l.recent.marks[1]
	r := Recent{Read: l.Committed.Read - from.Read, Judged: l.recent.judged, Moved: l.recent.moved}
	for v := range r.Late {
		r.Late[v] = l.Committed.Late[v] - from.Late[v]
	}
	r.Behind = behind(&l.Committed, from)
	return r
}

// Ledgers are the ledgers of all partitions that the process has ever owned.
type Ledgers map[emit.Source]*Ledger

// Open returns the ledger of a partition that is taken over from a commit that holds so
// many records.
func (ls Ledgers) Open(src emit.Source, held uint32) *Ledger {
	a := ls[src]
	if a == nil {
		a = &Ledger{marked: time.Now()}
		ls[src] = a
	}
	a.Pending.Carried += int64(held) - a.Pending.Held
	a.Pending.Held = int64(held)
	a.Commit()
	return a
}

// Abort discards what is not committed, of all partitions.
func (ls Ledgers) Abort() {
	for _, a := range ls {
		a.Abort()
	}
}

// Disorder returns the sum over the partitions of each topic. It includes partitions
// that were given up, because counters must not decrease. It always adds in the same
// order, because the last digit of a sum of floats depends on it.
func (ls Ledgers) Disorder() map[string]*Histogram {
	of := map[string]*Histogram{}
	for _, src := range slices.SortedFunc(maps.Keys(ls), func(a, b emit.Source) int { return cmp.Compare(a.Partition, b.Partition) }) {
		if of[src.Topic] == nil {
			of[src.Topic] = new(Histogram)
		}
		of[src.Topic].Add(&ls[src].Disorder)
	}
	return of
}
