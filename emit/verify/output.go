package verify

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// output is a record of .ordered or .late, taken apart.
type output struct {
	emit.Parts
	late   bool
	offset int64 // in the output
	hash   uint64
	proven bool // it has been compared with its source record
}

func (o *output) suspect() suspect {
	return suspect{late: o.late, source: o.SourceOffset, offset: o.offset, epoch: o.Epoch, hash: o.hash}
}

// suspected is the same with the hashes of what else the source record may be.
func (c *Checker) suspected() suspect {
	s, o := c.out.suspect(), &c.out
	s.ms, _ = watermark.KafkaMillis(o.Source.Timestamp)
	for n := len(o.Source.Headers) + 1; n <= len(o.Headers); n++ {
		s.others = append(s.others, c.hash(&o.Source, o.Headers[:n]))
	}
	return s
}

// read takes an output apart and reports whether it says what it is. One that lacks
// its epoch for want of room does not, although it names its source record: that has a
// header of the same name, which must be overruled.
func (c *Checker) read(o *output, r *kgo.Record, late bool) bool {
	o.late, o.offset, o.proven = late, r.Offset, false
	reader := c.reader(late)
	if !reader.Read(r, &o.Parts) {
		return false
	}
	if c.rules.Unnamed && !late {
		o.SourceOffset = -1 // most likely it is a header of the source's
		return false
	}
	onlyOne := !c.scope.Epochs && c.exact() // outputs newer than the commit may be of another
	if onlyOne || o.Has(emit.WordEpoch) || !carries(&o.Source, reader.Name(emit.WordSourceOffset)) || c.fits(o, r, reader.Name(emit.WordEpoch)) {
		return true
	}
	o.SourceOffset = -1
	return false
}

// open makes c.out the record and reports whether it has an identity.
func (c *Checker) open(r *kgo.Record, late bool) bool {
	o := &c.out
	known := c.read(o, r, late)
	o.Source.Topic, o.Source.Partition, o.Source.Offset = c.rules.Topic, c.rules.Partition, o.SourceOffset
	o.hash = c.hash(&o.Source, o.Source.Headers)
	if known && late {
		c.named[1]++
	} else if known {
		c.named[0]++
	}
	return known || c.rules.Unnamed && !late && c.nameUnnamed()
}

// stripLess tries whether c.out is the source record with this hash when
// fewer headers are taken for ours: the source's own may carry our names.
func (c *Checker) stripLess(h uint64) bool {
	o, reader := &c.out, c.reader(c.out.late)
	for n := len(o.Source.Headers) + 1; n < len(o.Headers); n++ {
		if c.hash(&o.Source, o.Headers[:n]) != h {
			continue
		}
		o.hash = h
		reader.Keep(&o.Parts, n)
		return true
	}
	return false
}

// Place returns the epoch and the source offset that an output names, -1 if it
// names none. A reader needs it to feed the outputs in their source's order.
func (c *Checker) Place(r *kgo.Record, late bool) (epoch, source int64) {
	var o output
	if !c.read(&o, r, late) {
		return o.Epoch, -1
	}
	return o.Epoch, o.SourceOffset
}

func (c *Checker) reader(late bool) *emit.Reader {
	if late {
		return c.readers[1]
	}
	return c.readers[0]
}

// seed is common to all Checkers: records are compared across partitions.
var seed = maphash.MakeSeed()

// hash returns the hash of a record's bytes as the contract sees them: key,
// value, timestamp and these headers, with null apart from empty. A timestamp
// outside 1678..2262 counts as none: its copy has none, and names it in a header.
func (c *Checker) hash(r *kgo.Record, headers []kgo.RecordHeader) uint64 {
	b := c.buf[:0]
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	ms, inside := watermark.KafkaMillis(r.Timestamp)
	if !inside {
		ms = noTimestamp
	}
	b = binary.AppendVarint(b, ms)
	b = binary.AppendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = binary.AppendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendBytes(b, h.Value)
	}
	c.buf = b
	return maphash.Bytes(seed, b)
}

const noTimestamp = -1

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}
