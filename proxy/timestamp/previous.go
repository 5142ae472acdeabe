package timestamp

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/watermark"
)

// ErrPrevious is what Extract returns for a record that takes its event time from the
// records before it. It wraps ErrInvalid, for where those are not known, and where there
// are none, the record has no event time.
var ErrPrevious = fmt.Errorf("%w: the record has none of its own, and there is none before it to take one from", ErrInvalid)

// previous is the event time of the record before. It is the last source, and always
// present.
type previous struct{}

func (previous) String() string { return "previous" }
func (previous) place() string  { return "previous" }

func (previous) time(*kgo.Record) (t watermark.Time, present bool, err error) {
	return watermark.None, true, ErrPrevious
}

// UsesPrevious reports whether records without an event time take that of one before them.
func (e *Extractor) UsesPrevious() bool {
	n := len(e.sources)
	return n > 0 && e.sources[n-1] == source(previous{})
}

// checkPrevious refuses a list in which previous is not the last of several sources.
func (e *Extractor) checkPrevious() error {
	n := len(e.sources)
	for i, s := range e.sources {
		switch {
		case s != source(previous{}):
		case n == 1:
			return errors.New("previous is the only source, so no record has an event time that another could take; name the source of those that have one before it, like json:source.ts_ms,previous")
		case i < n-1:
			return fmt.Errorf("%s is never reached, because previous comes before it; previous has to be the last", e.sources[i+1])
		case isTimestamp(e.sources[i-1]):
			return errors.New("previous is never reached, because timestamp comes before it; leave one of the two out")
		}
	}
	return nil
}
