package pipeline

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
)

// The timestamp type of a topic can change to LogAppendTime while the topic is read. From
// then on the timestamp of a record is its arrival time, and each record says so for as long
// as it is in the log; the preflight knows only the present setting.
//
// Where timestamps are the only source of event times, such a record is invalid: an arrival
// time is no event time, and a replay must reach the same verdict whatever the setting is by
// then. But first the preflight checks the topic again, and refuses it (exit code 2) while
// the setting persists. So only records written until it was fixed go to the late topic.
// Where timestamps are a fallback, an arrival time is used with a warning, as it is where
// the topic has had the setting from the start.

// onArrivalTime is called with the first record of a partition whose timestamp is its
// arrival time.
func (p *Partition) onArrivalTime(r *kgo.Record) error {
	l := p.line
	p.arrivals = true
	if l.Checked[p.Topic] {
		return nil
	}
	l.Checked[p.Topic] = true
	if l.Extract.UsesOnlyTimestamp() {
		return fmt.Errorf("the timestamp of %s partition %d offset %d is its arrival time: %w", p.Topic, p.Partition, r.Offset, preflight.ErrTopicsChanged)
	}
	l.Reporter.WarnOnce(p.Topic, preflight.ArrivalWarning, "topic", p.Topic, "hint", preflight.CreateTimeHint(fault.CommandsFor(l.Config), p.Topic))
	return nil
}
