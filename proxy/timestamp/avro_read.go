package timestamp

import (
	"encoding/binary"

	"github.com/tidemarkhq/tidemark/watermark"
)

// avroReader reads one field. Nothing in it recurses deeper than the path.
type avroReader struct{ way *avroStep }

func (a avroReader) read(in frame) (t watermark.Time, present bool, why string) {
	c := avroCursor{rest: in.value}
	return c.follow(a.way)
}

// avroCursor goes through a value. The first thing wrong with it stays.
type avroCursor struct {
	rest []byte
	why  string
}

func (c *avroCursor) follow(s *avroStep) (t watermark.Time, present bool, why string) {
	for {
		switch {
		case s.absent:
			return watermark.None, false, ""
		case s.why != "":
			return watermark.None, true, s.why
		case s.kind == avroUnion:
			branch := c.varint()
			if c.why == "" && (branch < 0 || branch >= int64(len(s.branches))) {
				c.fail(whyAvroBranch)
			}
			if c.why != "" {
				return watermark.None, true, c.why
			}
			s = s.branches[branch]
		case s.kind == avroMap:
			return c.lookUp(s)
		case s.kind == avroRecord:
			for _, t := range s.before {
				c.skip(t, 0)
			}
			if c.why != "" {
				return watermark.None, true, c.why
			}
			s = s.next
		default:
			return c.leaf(s)
		}
	}
}

// lookUp goes through the whole map: of several entries with one key the last
// counts.
func (c *avroCursor) lookUp(s *avroStep) (t watermark.Time, present bool, why string) {
	for n := c.block(); n > 0 && c.why == ""; {
		key := c.bytes()
		if string(key) == s.key && c.why == "" {
			inside := *c
			t, present, why = inside.follow(s.next)
		}
		c.skip(s.value, 0)
		if n--; n == 0 {
			n = c.block()
		}
	}
	if c.why != "" {
		return watermark.None, true, c.why
	}
	return t, present, why
}

func (c *avroCursor) leaf(s *avroStep) (t watermark.Time, present bool, why string) {
	var text []byte
	switch s.kind {
	case avroVarint:
		n := c.varint()
		if c.why != "" {
			return watermark.None, true, c.why
		}
		if t, why = s.unit.integer(n); why == "" {
			t, why = s.clock.onClock(t)
		}
		if why != "" {
			why = s.unit.refusalOf(n, why)
		}
		return t, true, why
	case avroFixed:
		text = c.take(int64(s.size))
	default:
		text = c.bytes()
	}
	if c.why != "" {
		return watermark.None, true, c.why
	}
	if t, why = s.unit.time(text); why != "" {
		why = s.unit.refusal(text, why)
	}
	return t, true, why
}

func (c *avroCursor) fail(why string) {
	if c.why == "" {
		c.why = why
	}
	c.rest = nil
}

func (c *avroCursor) varint() int64 {
	v, n := binary.Varint(c.rest)
	if n <= 0 {
		c.fail(whyShort)
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

func (c *avroCursor) take(n int64) []byte {
	if n < 0 {
		c.fail(whyAvroLength)
		return nil
	}
	if n > int64(len(c.rest)) {
		c.fail(whyShort)
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *avroCursor) bytes() []byte { return c.take(c.varint()) }

// block returns how many items the next block of an array or a map has; the last
// one has none. A block may say how long it is, with a negative number of items.
func (c *avroCursor) block() int64 {
	n := c.varint()
	if n < 0 {
		c.varint()
		n = -n
	}
	if n < 0 {
		c.fail(whyAvroLength)
	}
	return n
}

// skip goes past a value. Each value that takes bytes takes at least one, so the
// work is bounded by the value's length, times its depth.
func (c *avroCursor) skip(t *avroType, depth int) {
	if t.empty || c.why != "" {
		return
	}
	if depth > deepestAvro {
		c.fail(whyAvroDeep)
		return
	}
	switch t.kind {
	case avroBoolean:
		c.take(1)
	case avroVarint:
		c.varint()
	case avroFloat:
		c.take(4)
	case avroDouble:
		c.take(8)
	case avroBytes:
		c.bytes()
	case avroFixed:
		c.take(int64(t.size))
	case avroUnion:
		branch := c.varint()
		if branch < 0 || branch >= int64(len(t.parts)) {
			c.fail(whyAvroBranch)
			return
		}
		c.skip(t.parts[branch], depth+1)
	case avroRecord:
		for _, field := range t.skipped {
			c.skip(field, depth+1)
		}
	case avroArray, avroMap:
		c.skipItems(t, depth)
	}
}

func (c *avroCursor) skipItems(t *avroType, depth int) {
	for {
		n := c.varint()
		if n < 0 { // the block says how many bytes it has
			c.take(c.varint())
			n = 0
		} else if n == 0 {
			return
		}
		if t.kind == avroArray && t.parts[0].empty {
			n = 0
		}
		for ; n > 0 && c.why == ""; n-- {
			if t.kind == avroMap {
				c.bytes()
			}
			c.skip(t.parts[0], depth+1)
		}
		if c.why != "" {
			return
		}
	}
}
