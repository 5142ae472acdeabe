package pipeline

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/watermark"
)

// mark lets a watermark in a record's header move the partition's watermark. One that is
// unusable, or too far in the future, moves nothing; the record itself is not affected.
func (p *Partition) mark(r *kgo.Record) {
	l := p.line
	if _, replaying := p.State.Replaying(); replaying {
		return // it was applied and counted before
	}
	w, present, err := l.Config.WatermarkHeader.Time(r)
	p.countMarker(present, r)
	if !present {
		return
	}
	if err == nil && (p.Ledger.MarkerFitting.Add(p.reading(r, w)) || p.Ledger.MarkerMisfit != "" && l.now.Sub(p.markerMisfitLooked) >= remindEvery) {
		p.reportMarkerMisfit(r)
	}
	if err == nil && !p.State.Mark(w, l.wall) {
		err = fmt.Errorf("header %q is further ahead of the wall clock than TIDEMARK_MAX_FUTURE=%v allows",
			l.Config.WatermarkHeader, l.Config.MaxFuture)
	}
	if err != nil {
		if bad := &l.Invalid.Markers; bad.add(r, fmt.Errorf("%w: %w", fault.ErrNoWatermark, err)) {
			bad.Hint = l.Config.WatermarkHeader.Cure(err)
		}
	}
}

// reportMarkerMisfit reports that what is known of how the watermarks of records fit other
// clocks has changed, and again, less and less often, that they do not fit. One of 1970
// releases nothing, whatever is held.
func (p *Partition) reportMarkerMisfit(r *kgo.Record) {
	l, found, about := p.line, p.Ledger.MarkerFitting.Found(), "watermarks of "+p.Topic
	p.markerMisfitLooked = l.now
	if found.Factor == 0 {
		l.Reporter.Changed(about, "", slog.LevelInfo, "watermarks that records carry are plausible again", "topic", p.Topic, "partition", p.Partition, "offset", r.Offset)
		p.Ledger.MarkerMisfit = "" // those that are only old are for who waits for what they release
		return
	}
	what, cure := l.Config.WatermarkHeader.TooSmall(found.Factor)
	p.Ledger.MarkerMisfit = what + "; " + cure
	l.Reporter.Changed(about, what, slog.LevelWarn, "watermarks that records carry have the wrong unit; what is held is not released by them",
		"topic", p.Topic, "partition", p.Partition, "offset", r.Offset, "header", l.Config.WatermarkHeader.String(), "finding", what, "hint", cure)
}

// markers knows whether records carry watermarks, for TIDEMARK_WATERMARK=punctuated.
type markers struct {
	since   watermark.Instant // when the first record without one was read since the last one with
	records int               // since then
	missing bool              // for a minute
}

// unmarked are the partitions of a topic whose records carry no watermarks.
type unmarked struct {
	partitions []int32
	looked     watermark.Instant // when it was last asked whether to say so
}

// list lists the partitions, as lines about several topics do.
func (of *unmarked) list(topic string) string {
	words := make([]string, len(of.partitions))
	for i, n := range of.partitions {
		words[i] = strconv.Itoa(int(n))
	}
	return topic + "/" + strings.Join(words, ",")
}

// remindEvery is how often it is asked whether to say again what goes on: more often than it
// is said.
const remindEvery = 5 * time.Second

// countMarker counts a record with a marker or without.
func (p *Partition) countMarker(present bool, r *kgo.Record) {
	l, m := p.line, &p.markers
	if present {
		if m.missing {
			l.Reporter.Throttle(p.Topic, slog.LevelInfo, fault.None, "records carry watermarks again", "topic", p.Topic, "partition", p.Partition, "offset", r.Offset)
			of := l.unmarkedOf(p.Topic)
			of.partitions = slices.DeleteFunc(of.partitions, func(n int32) bool { return n == p.Partition })
		}
		*m, p.Ledger.NoMarkers = markers{}, ""
		return
	}
	if m.records == 0 {
		m.since = l.now
	}
	if m.records = min(m.records+1, math.MaxInt32); m.records >= sourceWindowLeast && l.now.Sub(m.since) >= time.Minute {
		p.reportUnmarked(r)
	}
}

func (l *Pipeline) unmarkedOf(topic string) *unmarked {
	if l.unmarked == nil {
		l.unmarked = map[string]*unmarked{}
	}
	if l.unmarked[topic] == nil {
		l.unmarked[topic] = new(unmarked)
	}
	return l.unmarked[topic]
}

// reportUnmarked reports, less and less often, that records of a topic carry no watermarks. r is
// one of them.
func (p *Partition) reportUnmarked(r *kgo.Record) {
	l, m, of := p.line, &p.markers, p.line.unmarkedOf(p.Topic)
	header := l.Config.WatermarkHeader
	if !m.missing {
		m.missing = true
		if !slices.Contains(of.partitions, p.Partition) {
			of.partitions = append(of.partitions, p.Partition)
			slices.Sort(of.partitions)
		}
		hint := "check the name of the header (TIDEMARK_WATERMARK_HEADER; capitals count), and that producers write it to every partition; or choose TIDEMARK_WATERMARK=bounded"
		if similar := header.Near(r); similar != "" {
			hint = fmt.Sprintf("records have a header %q, and names are compared exactly, capitals too: set TIDEMARK_WATERMARK_HEADER=%s", similar, header.Instead(similar))
		} else if len(r.Headers) == 0 {
			hint = fmt.Sprintf("the last record has no headers at all: have producers write header %q to every partition; or choose TIDEMARK_WATERMARK=bounded", header.Name())
		}
		p.Ledger.NoMarkers = hint
	} else if l.now.Sub(of.looked) < remindEvery {
		return
	}
	of.looked = l.now
	args := []any{"topic", p.Topic, "partitions", of.list(p.Topic), "partition", p.Partition, "offset", r.Offset, "records", m.records, "buffered", p.State.Owed(), "header", header.Name(), "hint", p.Ledger.NoMarkers}
	l.Reporter.Remind(p.Topic, slog.LevelWarn, "no record carries a watermark; nothing is released until one does, or the partition is idle", args...)
}
