package pipeline

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
)

// The timestamp type of a topic can be changed while it is read. From then on its
// records have the time of their arrival for a timestamp, and each of them says so,
// for as long as it is in the log; the preflight only knows what holds now.
//
// Where timestamps are the only source, such a record is invalid: a time of arrival is
// no event time, and what is read again must be judged again in the same way, whatever
// the topic is set to by then. But first the preflight looks at the topic once more,
// and refuses it (exit code 2) if it is still so. So nothing more goes to the late
// topic than what was written until somebody mended it. Behind other sources a time of
// arrival is taken, and told of, as it is where the topic was so from the start.

// onArrivalTime is called with the first record of a partition whose timestamp is the time
// of its arrival.
func (p *Partition) onArrivalTime(r *kgo.Record) error {
	l := p.line
	p.arrivals = true
	if l.Checked[p.Topic] {
		return nil
	}
	l.Checked[p.Topic] = true
	if l.Extract.UsesOnlyTimestamp() {
		return fmt.Errorf("%s partition %d has the time of arrival for a timestamp at offset %d: %w", p.Topic, p.Partition, r.Offset, preflight.ErrTopicsChanged)
	}
	l.Reporter.WarnOnce(p.Topic, preflight.ArrivalWarning, "topic", p.Topic, "hint", preflight.CreateTimeHint(fault.CommandsFor(l.Config), p.Topic))
	return nil
}
