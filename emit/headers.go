// Package emit makes the records of the ordered and of the late topic, byte for byte, and
// takes them apart again. It starts no goroutine and
// talks to no broker: records are values here. Package scan reads them, and package
// verify checks that they keep the contract.
package emit

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Headers says which headers are added to records, and under which names. The
// names are the prefix with the words below.
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
	WordWatermark       = "watermark"
	WordSourceOffset    = "source-offset"
	WordEventTime       = "event-time"
	WordEpoch           = "epoch" // absent in epoch 0, unless the source has it
	WordLateReason      = "late-reason"
	WordLateTimestamp   = "late-timestamp"      // invalid-time: the source's timestamp (ms) where it is outside 1678..2262, modulo 2^58
	WordUnknownSchema   = "late-unknown-schema" // invalid-time: id of a schema that the registry did not have
	WordSchema          = "late-schema"         // invalid-time: id of the schema by which it is unusable
	WordLateByMs        = "late-by-ms"          // where behind: floor(W) - floor(t)
	WordSourceTopic     = "source-topic"
	WordSourcePartition = "source-partition"
	WordLateAt          = "late-at" // wall clock: no function of the log, as no other value but the reason of a late repeat
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

// Epoch returns the epoch that an ordered or late record says it belongs to. A record
// for which there was room with none of our headers says nothing, and is not ok: it may
// be of any. One that has others of them and not the epoch's, which goes last, is of
// epoch 0.
func Epoch(r *kgo.Record, prefix string) (epoch uint32, ok bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		word, ours := strings.CutPrefix(r.Headers[i].Key, prefix)
		switch {
		case !ours:
		case word == WordEpoch:
			if n, err := strconv.ParseUint(string(r.Headers[i].Value), 10, 32); err == nil {
				return uint32(n), true
			}
			return 0, false
		case word == WordWatermark, word == WordSourceOffset, word == WordEventTime, word == WordLateReason:
			ok = true
		}
	}
	return 0, ok
}
