// Package emit is what Tidemark puts out: the records of the ordered and of
// the late topic, byte for byte, and the check that they keep the contract.
package emit

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Headers says which headers are added to records, and under which names. The
// names are the prefix with the words of headerWords.
type Headers struct {
	Prefix       string     // default "tidemark-"
	Watermark    bool       // lookahead watermark, ms; on ordered records
	SourceOffset bool       // on ordered records
	EventTime    bool       // ms; on ordered records
	Windows      window.Set // on ordered records, and on late ones that have an event time
}

// The words behind the prefix. Numbers are decimal text, times milliseconds
// since the Unix epoch. Ours are appended behind the source's headers in the
// order given here, windows last, and of headers with one name the last counts,
// as with Kafka's lastHeader: a source header that imitates ours stays, and is
// overruled.
const (
	wordWatermark       = "watermark"
	wordSourceOffset    = "source-offset"
	wordEventTime       = "event-time"
	wordEpoch           = "epoch" // absent in epoch 0, unless the source has it
	wordLateReason      = "late-reason"
	wordUnknownSchema   = "late-unknown-schema" // invalid-time: id of a schema that the registry did not have
	wordSchema          = "late-schema"         // invalid-time: id of the schema by which it is unusable
	wordLateByMs        = "late-by-ms"          // where behind: floor(W) - floor(t)
	wordSourceTopic     = "source-topic"
	wordSourcePartition = "source-partition"
	wordLateAt          = "late-at" // wall clock: no function of the log, as no other value but the reason of a late repeat
	wordCorrection      = "correction"
)

// Reason returns the tidemark-late-reason of a verdict, empty for those that
// put nothing on the late topic.
func Reason(v reorder.Verdict) string {
	switch v {
	case reorder.BehindWatermark, reorder.Overflow, reorder.Future, reorder.InvalidTime, reorder.Duplicate:
		return v.String()
	}
	return ""
}

// Epoch returns the epoch that an ordered or late record belongs to.
func Epoch(r *kgo.Record, prefix string) uint32 {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if h := r.Headers[i]; h.Key == prefix+wordEpoch {
			n, _ := strconv.ParseUint(string(h.Value), 10, 32)
			return uint32(n)
		}
	}
	return 0
}
