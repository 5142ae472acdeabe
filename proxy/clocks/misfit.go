package clocks

import (
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Misfit says how event times do not fit the other clocks. The zero value says that they fit.
type Misfit struct {
	// Factor is by how much event times seem to be too small: 1000 for seconds that are read
	// as milliseconds. 0: by none. One that is too large is outside the years of a
	// watermark.Time, and so is no reading.
	Factor int64
	// Apart is how far event times lie before the records' timestamps and the time of reading,
	// where no factor explains it: that of one of the readings.
	Apart time.Duration
}

// Fits reports whether event times fit.
func (m Misfit) Fits() bool { return m == Misfit{} }

// same reports whether two say the same, whatever the distance.
func (m Misfit) same(o Misfit) bool { return m.Factor == o.Factor && (m.Apart == 0) == (o.Apart == 0) }

const (
	// farApart is more than lies between an event and its record where nothing is wrong. An
	// archive that is written anew may be older, so it is told, and no more.
	farApart = 10 * 365 * 24 * time.Hour
	// near is how far apart an event and its record may be so that one confirms the other.
	near = 365 * 24 * time.Hour
	// earliest is when events begin that anybody has: 1990-01-01. Times in a smaller unit, read
	// in a larger one, lie in January 1970.
	earliest = watermark.Time(631_152_000 * time.Second)
)

// misfit returns how the event time of a reading does not fit.
func (r *Reading) misfit() Misfit {
	stamped := r.Timestamp != watermark.None
	confirmed := stamped && r.Event.Since(r.Timestamp).Abs() <= near
	for factor := watermark.Time(1000); factor <= 1e9; factor *= 1000 {
		// A timestamp of the same event may be wrong in the same way: seconds in the place of
		// milliseconds are in the second half of January 1970, where nothing else is. Other
		// factors lead into its first minutes, where times in tests are.
		if r.Event >= earliest/factor && r.Event <= r.Read.Add(near)/factor && (factor == 1000 || !confirmed) {
			return Misfit{Factor: int64(factor)}
		}
	}
	if apart := r.Read.Since(r.Event); !confirmed && apart > farApart && (!stamped || r.Timestamp.Since(r.Event) > farApart) {
		return Misfit{Apart: apart}
	}
	return Misfit{}
}

// Fitting watches whether the event times of a partition fit other clocks: at first looking at
// every record, then at a sample. The zero value is ready.
type Fitting struct {
	seen  uint8    // of the present group
	first bool     // the first group is over
	votes [4]uint8 // by factor, 1000 first; the last one for what is far apart
	apart time.Duration
	found Misfit
}

// Records of which three quarters have to agree, and the first of which all have to.
const (
	misfitGroup = 16
	misfitFirst = 4
)

// Early reports whether every record is still looked at.
func (f *Fitting) Early() bool { return !f.first }

// Found returns what was found so far.
func (f *Fitting) Found() Misfit { return f.found }

// Add adds a reading, and reports whether what was found has changed.
func (f *Fitting) Add(r Reading) (changed bool) {
	m := r.misfit()
	kind := 0
	for factor := m.Factor; factor > 1; factor /= 1000 {
		kind++
	}
	switch {
	case kind > 0:
		f.votes[kind-1]++
	case !m.Fits():
		f.votes[3]++
		f.apart = m.Apart
	}
	f.seen++
	most := f.majority()
	enough := f.seen >= misfitGroup || !f.first && f.seen == misfitFirst && most.Factor != 0 && f.all()
	if !enough {
		return false
	}
	if f.seen >= misfitGroup {
		f.first, f.seen, f.votes = true, 0, [4]uint8{}
	}
	if changed = !most.same(f.found); changed {
		f.found = most
	}
	return changed
}

// majority returns what most readings of the group say; where opinions are divided, what was
// found before.
func (f *Fitting) majority() Misfit {
	total := uint8(0)
	factor := int64(1)
	least := f.seen - f.seen/4 // 12 of 16
	for kind, n := range f.votes {
		factor *= 1000
		total += n
		switch {
		case n < least:
		case kind < 3:
			return Misfit{Factor: factor}
		default:
			return Misfit{Apart: f.apart}
		}
	}
	if total <= f.seen/4 {
		return Misfit{}
	}
	return f.found
}

// all reports whether all readings of the group say the same.
func (f *Fitting) all() bool {
	for _, n := range f.votes {
		if n == f.seen {
			return true
		}
	}
	return false
}
