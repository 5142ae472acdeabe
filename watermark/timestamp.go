package watermark

import "time"

// The client makes a time of a Kafka timestamp, which is a number of milliseconds in 64
// bits, by ms * 1e6, and does not look at the overflow. So a timestamp outside 1678..2262
// (microseconds taken for milliseconds, say) turns up as some other time inside:
//
//	ms * 1e6 = turned + k * 2^64
//
// What gives it away is the fraction of a millisecond that 2^64 leaves for every k that is
// no multiple of 15,625. And since 1e6 is 2^6 * 15,625, and 15,625 has an inverse, the
// turned time tells all of ms but its highest six bits.

const (
	turnedBits = 58                // of a timestamp, which are left of it
	inverse    = 0x10fb65668c26139 // of 15,625, modulo 2^58
)

// KafkaMillis returns the Kafka timestamp, in ms, of which the client has made a time, and
// whether it is inside 1678..2262. One that is not is known modulo 2^58 ms, which is nine
// million years; what is returned is the nearest to 1970. A time that was made by
// time.UnixMilli is returned as it is.
//
// One of those that differ from a time inside by a multiple of 2^58 ms looks the same to
// the client, and so it does here.
func KafkaMillis(t time.Time) (ms int64, inside bool) {
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		return NearestMillis(int64(uint64(t.UnixNano()) >> 6 * inverse)), false
	}
	ms = t.UnixMilli()
	_, inside = FromMillis(ms)
	return ms, inside
}

// NearestMillis returns the timestamp nearest to 1970 of those that the client makes the
// same time of.
func NearestMillis(ms int64) int64 {
	const lost = 64 - turnedBits
	return ms << lost >> lost
}
