package clocks

import (
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/tidemarkhq/tidemark/watermark"
)

// MostProducers is how many producers are remembered at once, and so bounds
// what a header with ever new values can cost: some 600 KiB.
const MostProducers = 1024

// judgedBy is how many records of a producer it is judged by: an odd number, for the median.
const judgedBy = 31

// longestName is how many bytes of a header tell producers apart.
const longestName = 47

// name is that of a producer: of a fixed size, so that looking it up leaves no
// garbage.
type name struct {
	topic string
	size  uint8
	value [longestName]byte
}

// producer is what is remembered of one.
type producer struct {
	count  int
	lead   [judgedBy]time.Duration // of its event times over the clock they are compared with
	judged bool
	last   Finding
	// The latest finding, if it differs from last, and the wall clock when it first did.
	doubt Finding
	since watermark.Time
}

// sure is how long a finding by the time of reading has to persist before it counts:
// records that pile up while brokers are down arrive all at once, and look older than they
// were.
const sure = 10 * time.Second

// Judgement is a change in what is known about a producer's clock.
type Judgement struct {
	Finding Finding       // Ahead, Behind, or Right: it is right again
	Lead    time.Duration // how far ahead its clock is; below 0: behind
	Name    string        // quoted: the header's value, cut if it is long
	// Everybody says that every producer judged so far is off, so the clock of this
	// machine may be the one that is off.
	Everybody bool
}

// Producers judges the clocks of producers. Its memory is bounded: it forgets the producer
// that it has not seen for longest. It is not safe for concurrent use.
type Producers struct {
	known      *simplelru.LRU[name, *producer]
	right, off int // of those judged
}

// NewProducers returns an empty memory.
func NewProducers() *Producers {
	p := &Producers{}
	p.known, _ = simplelru.NewLRU(MostProducers, func(_ name, old *producer) { p.count(old, -1) }) // fails for a size of 0
	return p
}

func (p *Producers) count(who *producer, by int) {
	switch {
	case !who.judged:
	case who.last == Right:
		p.right += by
	default:
		p.off += by
	}
}

// Add adds a reading of the producer that the value of a header names. Once there are
// enough, the producer is judged by their median, and ok says that the judgement has
// changed. slack is how far its clock may be off.
//
// Add ignores readings that cannot be compared with another clock; see Evidence.Finding.
func (p *Producers) Add(topic string, value []byte, r Reading, slack time.Duration) (j Judgement, ok bool) {
	if !r.Appended && !r.Fresh {
		return j, false
	}
	reference := r.Read
	if r.Appended && r.Timestamp != watermark.None {
		reference = r.Timestamp
	}
	who := p.find(topic, value)
	who.lead[who.count] = r.Event.Since(reference)
	if who.count++; who.count < judgedBy {
		return j, false
	}
	who.count = 0
	slices.Sort(who.lead[:])
	found, lead := judge(&who.lead, slack, who.last)
	if found != who.last {
		if found != who.doubt {
			who.doubt, who.since = found, r.Read
		}
		if !r.Appended && r.Read.Since(who.since) < sure {
			return j, false
		}
	}
	changed := found != who.last
	p.count(who, -1)
	who.judged, who.last, who.doubt = true, found, found
	p.count(who, 1)
	if !changed {
		return j, false
	}
	return Judgement{found, lead, quoted(value), p.right == 0 && p.off > 1}, true
}

func (p *Producers) find(topic string, value []byte) *producer {
	key := name{topic: topic}
	key.size = uint8(copy(key.value[:], value))
	who, ok := p.known.Get(key)
	if !ok {
		who = new(producer)
		p.known.Add(key, who)
	}
	return who
}

// judge returns what is wrong with a clock by its sorted leads. A clock that was off is
// right again at half the slack, so that one at the edge is not reported again and again.
func judge(sorted *[judgedBy]time.Duration, slack time.Duration, before Finding) (Finding, time.Duration) {
	const middle, quarter = judgedBy / 2, judgedBy / 4
	lead := sorted[middle]
	if before != Right {
		slack /= 2
	}
	switch {
	case lead > slack:
		return Ahead, lead
	case lead >= -slack:
		return Right, lead
	}
	// It may seem behind because its events are delayed; delays vary.
	if float64(sorted[judgedBy-1-quarter])-float64(sorted[quarter]) > float64(lead.Abs()/4) {
		return Right, lead
	}
	return Behind, lead
}

// quoted returns a header's value for the log: without control characters, and cut to the
// length that tells producers apart.
func quoted(value []byte) string {
	if len(value) > longestName {
		return strconv.QuoteToASCII(string(value[:longestName])) + "..."
	}
	return strconv.QuoteToASCII(string(value))
}
