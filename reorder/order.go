// Package reorder puts the records of a partition into event-time order and
// knows at every moment what of them is still owed. It is a pure state
// machine: records and answers go in, verdicts and releases come out, and its
// whole state can be written down in about 150 bytes and taken up again from
// the log. It reads no clock, starts no goroutine and knows nothing of Kafka.
package reorder

import "github.com/tidemarkhq/tidemark/watermark"

// Position is a place in the order of a partition.
type Position struct {
	Time   watermark.Time
	Offset int64
}

// Before is the total order of everything Tidemark puts out: by event time,
// and among equals by source offset. It stands here and nowhere else.
func (p Position) Before(q Position) bool {
	return p.Time < q.Time || p.Time == q.Time && p.Offset < q.Offset
}

func (p Position) compare(q Position) int {
	switch {
	case p.Before(q):
		return -1
	case q.Before(p):
		return 1
	}
	return 0
}

// OffsetHash spreads an offset over 32 bits (the finaliser of splitmix64), so
// that the sum over the buffered offsets tells one set of them from another.
func OffsetHash(offset int64) uint32 {
	z := uint64(offset) + 0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	return uint32(z >> 32)
}
