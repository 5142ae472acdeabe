package timestamp

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// noTimestamp is what Kafka stores for a record without a timestamp, in ms.
const noTimestamp = -1

// recordTimestamp is the timestamp that Kafka keeps with the record: the time that
// its producer gave it (CreateTime), or that of the broker's clock when the record
// arrived (LogAppendTime). Each record says which; its topic says which it will be.
type recordTimestamp struct {
	// alone: there is no other source, so a time of arrival would take the place of
	// event times altogether. Behind others it is what the configuration asks for.
	alone bool
}

func (recordTimestamp) String() string { return "timestamp" }
func (recordTimestamp) place() string  { return "timestamp" }

// time returns the event time in the record's own timestamp, and whether there is
// one. Absent are Kafka's -1 and the zero time, which the client
// gives to records of before Kafka 0.10. Other negative timestamps are
// present, and invalid. One outside 1678..2262 does not come here: see Extract.
func (s recordTimestamp) time(r *kgo.Record) (t watermark.Time, present bool, err error) {
	if r.Timestamp.IsZero() {
		return watermark.None, false, nil
	}
	ms := r.Timestamp.UnixMilli()
	if ms == noTimestamp {
		return watermark.None, false, nil
	}
	if s.alone && IsArrival(r) {
		return watermark.None, true, fmt.Errorf("%w: the record's timestamp (%d ms) is the time of its arrival (LogAppendTime)", ErrInvalid, ms)
	}
	if ms < 0 {
		return watermark.None, true, fmt.Errorf("%w: the record's timestamp is negative (%d ms)", ErrInvalid, ms)
	}
	t, _ = watermark.FromMillis(ms)
	return t, true, nil
}

// IsArrival reports whether the record's own timestamp is that of the broker's clock
// when the record arrived.
func IsArrival(r *kgo.Record) bool { return r.Attrs.TimestampType() == logAppendTime }

// logAppendTime is a timestamp type, as the client numbers them.
const logAppendTime = 1

// Own returns a record's own timestamp, None if it has none.
func Own(r *kgo.Record) watermark.Time {
	ms := r.Timestamp.UnixMilli()
	if r.Timestamp.IsZero() || ms < 0 {
		return watermark.None
	}
	t, _ := watermark.FromMillis(ms)
	return t
}
