package emit

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// headerNames are the headers of one output in the order in which they are
// appended, with their prefix.
type headerNames []string

var (
	orderedHeaders = []string{wordWatermark, wordSourceOffset, wordEventTime, wordEpoch}
	lateHeaders    = []string{
		wordLateReason, wordUnknownSchema, wordSchema, wordLateByMs, wordWatermark, wordSourceTopic,
		wordSourcePartition, wordSourceOffset, wordLateAt, wordEpoch,
	}
)

// The places of the headers in the two lists above.
const (
	orderedWatermark = iota
	orderedSource
	orderedEventTime
	orderedEpoch
)

const (
	lateReason = iota
	lateUnknownSchema
	lateSchema
	lateByMillis
	lateWatermark
	lateTopic
	latePartition
	lateSource
	lateAt
	lateEpoch
	lateCount
)

func newHeaderNames(prefix string, names []string) headerNames {
	ns := make(headerNames, len(names))
	for i, n := range names {
		ns[i] = prefix + n
	}
	return ns
}

// output is a record of .ordered or .late, taken apart into the source record
// and what was appended to it.
type output struct {
	late   bool
	offset int64 // in the output
	source int64
	epoch  int64
	hash   uint64
	proven bool // it has been compared with its source record

	rec     kgo.Record // the source record, as far as the output tells
	headers []kgo.RecordHeader
	has     [lateCount]bool
	values  [lateCount][]byte
	windows []kgo.RecordHeader // at the end of headers
}

func (o *output) suspect() suspect {
	return suspect{late: o.late, source: o.source, offset: o.offset, epoch: o.epoch, hash: o.hash}
}

// suspected is the same with the hashes of what else the source record may be.
func (c *Checker) suspected() suspect {
	s, o := c.out.suspect(), &c.out
	for n := len(o.rec.Headers) + 1; n <= len(o.headers); n++ {
		s.others = append(s.others, c.hash(&o.rec, o.headers[:n]))
	}
	return s
}

// number returns a header as a number, whether it is there, and what is wrong
// with it.
func (o *output) number(i int) (v int64, has bool, err error) {
	if !o.has[i] {
		return 0, false, nil
	}
	v, err = strconv.ParseInt(string(o.values[i]), 10, 64)
	return v, true, err
}

// strip returns how many headers are the source's own. From the end, it takes
// away those that we append, each name once and in our order. A source header
// that imitates ours stands before ours and so ends the search, unless ours
// of that name and all before it are switched off: see stripLess.
func (o *output) strip(ns headerNames, fs *families) int {
	o.has, o.values = [lateCount]bool{}, [lateCount][]byte{}
	n, rank := fs.before(o.headers), len(ns)
	o.windows = o.headers[n:]
	for n > 0 {
		k := slices.Index(ns[:rank], o.headers[n-1].Key)
		if k < 0 {
			break
		}
		n--
		rank = k
		o.has[k], o.values[k] = true, o.headers[n].Value
	}
	return n
}

// read takes an output apart. It reports whether it says what it is.
func (o *output) read(r *kgo.Record, late bool, ns headerNames, fs *families) bool {
	source, epoch := orderedSource, orderedEpoch
	if late {
		source, epoch = lateSource, lateEpoch
	}
	o.late, o.offset, o.source, o.headers, o.rec, o.proven = late, r.Offset, -1, r.Headers, *r, false
	o.rec.Headers = r.Headers[:o.strip(ns, fs)]
	o.epoch, _, _ = o.number(epoch)
	v, has, err := o.number(source)
	if !has || err != nil || v < 0 {
		return false
	}
	o.source = v
	return true
}

// read takes an output apart and reports whether it says what it is. One that lacks
// its epoch for want of room does not, although it names its source record: that has a
// header of the same name, which must be overruled.
func (c *Checker) read(o *output, r *kgo.Record, late bool) bool {
	if !o.read(r, late, c.namesOf(late), c.windows) {
		return false
	}
	source, epoch := orderedSource, orderedEpoch
	if late {
		source, epoch = lateSource, lateEpoch
	}
	names := c.namesOf(late)
	onlyOne := !c.scope.Epochs && c.exact() // outputs newer than the commit may be of another
	if onlyOne || o.has[epoch] || !carries(&o.rec, names[source]) || c.fits(o, r, names[epoch]) {
		return true
	}
	o.source = -1
	return false
}

// open makes c.out the record and reports whether it has an identity. One
// that has none is set aside.
func (c *Checker) open(r *kgo.Record, late bool) bool {
	o := &c.out
	known := c.read(o, r, late)
	o.rec.Topic, o.rec.Partition, o.rec.Offset = c.rules.Topic, c.rules.Partition, o.source
	o.hash = c.hash(&o.rec, o.rec.Headers)
	if known && late {
		c.named[1]++
	} else if known {
		c.named[0]++
	}
	if known {
		return true
	}
	c.bareOutput(r)
	return false
}

// stripLess tries whether c.out is the source record with this hash when
// fewer headers are taken for ours: the source's own may carry our names.
func (c *Checker) stripLess(h uint64) bool {
	o, names := &c.out, c.namesOf(c.out.late)
	for n := len(o.rec.Headers) + 1; n < len(o.headers); n++ {
		if c.hash(&o.rec, o.headers[:n]) != h {
			continue
		}
		o.rec.Headers, o.hash = o.headers[:n], h
		for i := range names {
			o.has[i] = slices.ContainsFunc(o.headers[n:], func(h kgo.RecordHeader) bool { return h.Key == names[i] })
		}
		return true
	}
	return false
}

// Place returns the epoch and the source offset that an output names, -1 if it
// names none. A reader needs it to feed the outputs in their source's order.
func (c *Checker) Place(r *kgo.Record, late bool) (epoch, source int64) {
	var o output
	if !c.read(&o, r, late) {
		return o.epoch, -1
	}
	return o.epoch, o.source
}

func (c *Checker) namesOf(late bool) headerNames {
	if late {
		return c.names[1]
	}
	return c.names[0]
}

// seed is common to all Checkers: records are compared across partitions.
var seed = maphash.MakeSeed()

// hash returns the hash of a record's bytes as the contract sees them: key,
// value, timestamp and these headers, with null apart from empty.
func (c *Checker) hash(r *kgo.Record, headers []kgo.RecordHeader) uint64 {
	b := c.buf[:0]
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	b = binary.AppendVarint(b, r.Timestamp.UnixMilli())
	b = binary.AppendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = binary.AppendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendBytes(b, h.Value)
	}
	c.buf = b
	return maphash.Bytes(seed, b)
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}
