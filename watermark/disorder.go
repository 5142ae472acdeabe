package watermark

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"time"
)

// Disorder remembers how far records came behind the newest event time, and
// answers how far the watermark has to stay behind so that no more than a given
// share of them is late. It is what the adaptive strategy has learned.
//
// It is a histogram. Its classes are whole milliseconds up to 16 and then
// eight to the octave, so that the answer is at most an eighth too large:
//
//	class    0   1   2 .. 16   17      18      .. 24      25     ..   240
//	up to    0   1   2 .. 16   18      20      .. 32      36     ..   2^32 ms
//
// When it holds sixteen times as many records as one of which may be late, all
// counts are halved. So what is long past fades, and 8 to 16 records beyond the bound are enough to raise it,
// however long the stream was calm.
//
// Everything is in whole numbers: the same records make the same bound, on
// every machine, and what Append writes is all there is to it.
type Disorder struct {
	late    uint64 // share that may be late, in millionths
	counts  []uint32
	total   uint64
	bound   int    // the class that the bound is the end of
	beyond  uint64 // records in the classes above it
	highest int    // no record is in a class above
}

const (
	million  = 1_000_000
	disorder = 16 // how many times 1/share the histogram holds, at most
	// Finest and coarsest classes.
	fineClasses = 16
	perOctave   = 8
	octaves     = 28
	classes     = fineClasses + perOctave*octaves + 1
	// MostBound is the end of the last class: 49 days.
	MostBound = 1 << 32 * time.Millisecond
)

// NewDisorder returns the memory of a stream of which nothing is known. late is
// the share of the records that may be late, in millionths.
func NewDisorder(late int) *Disorder {
	return &Disorder{late: uint64(late), counts: make([]uint32, classes)}
}

// classOf returns the class of a disorder.
func classOf(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	ms := uint64(d-1)/uint64(time.Millisecond) + 1
	if ms <= fineClasses {
		return int(ms)
	}
	octave := bits.Len64(ms-1) - 5 // 0 is 17 to 32
	if octave >= octaves {
		return classes - 1
	}
	within := (ms - 1 - 16<<octave) >> (octave + 1)
	return fineClasses + 1 + perOctave*octave + int(within)
}

// endOf returns the largest disorder of a class.
func endOf(class int) time.Duration {
	if class <= fineClasses {
		return time.Duration(class) * time.Millisecond
	}
	octave, within := (class-fineClasses-1)/perOctave, (class-fineClasses-1)%perOctave
	return time.Duration(16<<octave+(within+1)<<(octave+1)) * time.Millisecond
}

// Add takes a record into account that came d behind the newest event time; 0 or
// less for one that is the newest.
func (h *Disorder) Add(d time.Duration) {
	class := classOf(d)
	h.counts[class]++
	h.total++
	h.highest = max(h.highest, class)
	if class > h.bound {
		h.beyond++
	}
	if h.total*h.late >= disorder*million {
		h.halve()
	}
	h.settle()
}

// halve halves how many records came later than any given disorder, rather than
// each count: of a tail with a record here and there half of the records stay.
func (h *Disorder) halve() {
	above, kept := uint64(0), uint64(0)
	h.beyond = 0
	for class := h.highest; class >= 0; class-- {
		above += uint64(h.counts[class])
		n := above/2 - kept
		kept += n
		h.counts[class] = uint32(n)
		if class > h.bound {
			h.beyond += n
		}
		if kept == 0 {
			h.highest = max(class-1, 0)
		}
	}
	h.total = kept
}

// settle moves the bound to the first class beyond which no more lie than may be
// late.
func (h *Disorder) settle() {
	for h.beyond*million > h.late*h.total {
		h.bound++
		h.beyond -= uint64(h.counts[h.bound])
	}
	for h.bound > 0 && (h.beyond+uint64(h.counts[h.bound]))*million <= h.late*h.total {
		h.beyond += uint64(h.counts[h.bound])
		h.bound--
	}
}

// Bound returns the smallest bound, by classes, beyond which no larger share of
// the records came than may be late; and whether there are enough of them to
// say, which is when one could be late.
func (h *Disorder) Bound() (bound time.Duration, known bool) {
	return endOf(h.bound), h.total*h.late >= million
}

// Append writes the histogram down: for each class that is not empty the number
// of empty ones before it, and the count.
func (h *Disorder) Append(b []byte) []byte {
	empty := uint64(0)
	for _, n := range h.counts[:h.highest+1] {
		if n == 0 {
			empty++
			continue
		}
		b = binary.AppendUvarint(b, empty)
		b = binary.AppendUvarint(b, uint64(n))
		empty = 0
	}
	return b
}

var errDisorder = errors.New("not a histogram of disorder")

// ReadDisorder reads what Append has written. The share may be another one.
func ReadDisorder(b []byte, late int) (*Disorder, error) {
	h := NewDisorder(late)
	for class := uint64(0); len(b) > 0; class++ {
		empty, n := binary.Uvarint(b)
		if n <= 0 || empty >= classes {
			return nil, errDisorder
		}
		b = b[n:]
		count, n := binary.Uvarint(b)
		if class += empty; n <= 0 || class >= classes || count == 0 || count > disorder*million {
			return nil, errDisorder
		}
		b = b[n:]
		h.counts[class] = uint32(count)
		h.total += count
		h.highest = int(class)
	}
	h.beyond = h.total - uint64(h.counts[0])
	for h.total*h.late >= disorder*million { // a larger share may be late now
		h.halve()
	}
	h.settle()
	return h, nil
}
