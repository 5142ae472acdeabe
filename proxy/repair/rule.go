// Package repair turns late records into corrections: it reads stretches of late topics,
// chooses records, and sorts them by event time, in as many steps as memory requires; and
// publishes them in transactions.
package repair

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Reasons are the reasons why a record is on a late topic.
var Reasons = []string{
	emit.Reason(reorder.BehindWatermark), emit.Reason(reorder.Overflow),
	emit.Reason(reorder.Future), emit.Reason(reorder.InvalidTime),
}

// Behind are the reasons that are corrected by default: the event time is credible, and the
// record only came too late.
var Behind = Reasons[:2:2]

// ParseReasons reads a comma-separated list of reasons.
func ParseReasons(text string) ([]string, error) {
	var chosen []string
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(Reasons, word) {
			return nil, fmt.Errorf("%q is not a reason for being late; known: %s", word, strings.Join(Reasons, ", "))
		}
		if !slices.Contains(chosen, word) {
			chosen = append(chosen, word)
		}
	}
	return chosen, nil
}

// Rule says which late records are corrected.
type Rule struct {
	Prefix    string                                    // of our headers
	EventTime func(*kgo.Record) (watermark.Time, error) // of a source record; an error is a verdict if it wraps timestamp.ErrInvalid
	Reasons   []string
	TTL       time.Duration // how long after they were put there
	Now       time.Time
}

// fate is what becomes of a late record.
type fate int

const (
	correct fate = iota
	expired
	otherReason
	corrected  // before: to do it again would go round in circles
	unreadable // it does not say what it is
	noTime     // it has no event time by the sources of now
	undecided  // its event time could not be found out now
)

// judge decides about a record. The error says why it is unreadable, why it has no event time,
// or why it cannot be decided now.
func (rule *Rule) judge(reader *emit.LateReader, r *kgo.Record) (fate, emit.Late, watermark.Time, error) {
	late, err := reader.Read(r)
	switch {
	case late.Corrected:
		return corrected, late, 0, nil
	case err != nil:
		return unreadable, late, 0, err
	case !slices.Contains(rule.Reasons, late.Reason):
		return otherReason, late, 0, nil
	case rule.Now.UnixMilli()-late.AtMs > rule.TTL.Milliseconds():
		return expired, late, 0, nil
	}
	t, err := rule.EventTime(&late.Source)
	if err != nil && !errors.Is(err, timestamp.ErrInvalid) {
		return undecided, late, 0, err
	}
	if err != nil {
		return noTime, late, 0, err
	}
	return correct, late, t, nil
}
