package clocks

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
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

	by    time.Duration  // its lead when it was judged last
	told  watermark.Time // when it was last told of,
	pause time.Duration  // and how long not again
}

// A producer whose clock stays off is told of again: after leastPause, then each time after
// twice as long, up to mostPause.
const (
	leastPause = 30 * time.Second
	mostPause  = time.Hour
)

// sure is how long a finding by the time of reading has to persist before it counts:
// records that pile up while brokers are down arrive all at once, and look older than they
// were.
const sure = 10 * time.Second

// Judgement is what is known about a producer's clock.
type Judgement struct {
	Topic   string
	Finding Finding       // Ahead, Behind, or Right: it is right again
	Lead    time.Duration // how far ahead its clock is; below 0: behind
	Name    string        // the header's value, cut if it is long, and quoted unless it is plain
	// Everybody says that every producer judged so far is off, so the clock of this
	// machine may be the one that is off.
	Everybody bool
}

// Producers judges the clocks of producers. Its memory is bounded: it forgets the producer
// that it has not seen for longest. It is not safe for concurrent use.
type Producers struct {
	known *simplelru.LRU[name, *producer]
	right int                // of those judged
	off   map[name]*producer // the others
}

// NewProducers returns an empty memory.
func NewProducers() *Producers {
	p := &Producers{off: map[name]*producer{}}
	p.known, _ = simplelru.NewLRU(MostProducers, func(of name, old *producer) { p.forget(&of, old) }) // fails for a size of 0
	return p
}

func (p *Producers) forget(of *name, who *producer) {
	if who.judged && who.last == Right {
		p.right--
	}
	delete(p.off, *of)
}

func (p *Producers) remember(of *name, who *producer) {
	if who.last == Right {
		p.right++
	} else {
		p.off[*of] = who
	}
}

// Off returns the producers of a topic whose clocks are off, of all topics if it has no name:
// so many of them, those that are off the most first, and how many there are.
func (p *Producers) Off(topic string, most int) (found []Judgement, all int) {
	for of, who := range p.off {
		if topic == "" || of.topic == topic {
			found = append(found, Judgement{of.topic, who.last, who.by, quoted(of.value[:of.size]), false})
		}
	}
	slices.SortFunc(found, func(a, b Judgement) int {
		return cmp.Or(cmp.Compare(b.Lead.Abs(), a.Lead.Abs()), strings.Compare(a.Topic, b.Topic), strings.Compare(a.Name, b.Name))
	})
	return found[:min(len(found), most)], len(found)
}

// mostNames is how many producers are named in a sentence.
const mostNames = 3

// Names says how far the clocks of producers are off: of the first few of those that are
// given, and of how many there are in all. It is empty if there are none.
func Names(some []Judgement, all int) string {
	if len(some) == 0 {
		return ""
	}
	n := min(len(some), mostNames)
	words := make([]string, n)
	for i, j := range some[:n] {
		way := "ahead"
		if j.Lead < 0 {
			way = "behind"
		}
		words[i] = j.Name + " is " + Span(j.Lead.Abs().Round(100*time.Millisecond)) + " " + way
	}
	what := "the clock of producer "
	if all > 1 {
		what = "the clocks of producers are off: "
	}
	if all > n {
		words = append(words, strconv.Itoa(all-n)+" more")
	}
	return what + strings.Join(words, ", ")
}

// Add adds a reading of the producer that the value of a header names. Once there are
// enough, the producer is judged by their median, and ok says that it is to be told: the
// judgement has changed, or the clock is off still. slack is how far its clock may be off.
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
	key, who := p.find(topic, value)
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
	p.forget(&key, who)
	who.judged, who.last, who.doubt, who.by = true, found, found, lead
	p.remember(&key, who)
	switch {
	case changed:
		who.pause = leastPause
	case found == Right || r.Read.Since(who.told) < who.pause:
		return j, false
	default:
		who.pause = min(2*who.pause, mostPause)
	}
	who.told = r.Read
	return Judgement{topic, found, lead, quoted(value), p.right == 0 && len(p.off) > 1}, true
}

func (p *Producers) find(topic string, value []byte) (name, *producer) {
	key := name{topic: topic}
	key.size = uint8(copy(key.value[:], value))
	who, ok := p.known.Get(key)
	if !ok {
		who = new(producer)
		p.known.Add(key, who)
	}
	return key, who
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
	cut := ""
	if len(value) > longestName {
		value, cut = value[:longestName], "..."
	}
	text := strconv.QuoteToASCII(string(value))
	if plain := text[1 : len(text)-1]; plain == string(value) && plain != "" && !strings.ContainsAny(plain, " ,;()") {
		return plain + cut
	}
	return text + cut
}
