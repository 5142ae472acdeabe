package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// The contract may hold of a result that is of no use: everything late, or in the order of a
// wrong clock. That is no violation, and changes no verdict; it is noted beside it.

// notesOn says of a topic what its reader did not come for.
func notesOn(r verify.Report, cfg config.Config, m *misfitting) (notes []string) {
	if note := m.note(cfg); note != "" {
		notes = append(notes, note)
	}
	late, reasons := int64(0), []string{}
	for _, why := range slices.Sorted(maps.Keys(r.Late)) {
		if n := r.Late[why]; n > 0 && why != emit.Reason(reorder.Duplicate) {
			late += n
			reasons = append(reasons, fmt.Sprintf("%s %d", why, n))
		}
	}
	switch invalid := r.Late[emit.Reason(reorder.InvalidTime)]; {
	case invalid > 0 && invalid == r.Ordered+late:
		notes = append(notes, fmt.Sprintf("none of the %d records that came out has a usable event time (invalid-time): is TIDEMARK_EVENT_TIME right? Once it is, `tidemark repair --reasons invalid-time` publishes them in order", invalid))
	case cfg.LateLimit.Exceeded(late, r.Ordered+late):
		notes = append(notes, fmt.Sprintf("%d of the %d records that came out are late (%s), which is more than TIDEMARK_LATE_LIMIT=%v: docs/troubleshooting.md has the causes", late, r.Ordered+late, strings.Join(reasons, ", "), cfg.LateLimit))
	}
	return notes
}

// misfitting watches whether the event times of a topic fit other clocks.
type misfitting struct {
	read atomic.Int64

	mu      sync.Mutex
	fitting clocks.Fitting
	last    *kgo.Record // with which it was found out
}

// Of the first records all are looked at, then one in misfitSample.
const (
	misfitFirst  = 1024
	misfitSample = 64
)

// watch returns a reading of event times that is watched.
func (m *misfitting) watch(read func(*kgo.Record) (watermark.Time, error)) func(*kgo.Record) (watermark.Time, error) {
	return func(r *kgo.Record) (watermark.Time, error) {
		t, err := read(r)
		if n := m.read.Add(1); err == nil && (n <= misfitFirst || n%misfitSample == 0) {
			m.add(r, t)
		}
		return t, err
	}
}

func (m *misfitting) add(r *kgo.Record, t watermark.Time) {
	reading := clocks.Reading{Event: t, Timestamp: timestamp.Own(r), Read: watermark.Time(time.Now().UnixNano()), Appended: timestamp.IsArrival(r)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fitting.Add(reading) {
		m.last = &kgo.Record{Timestamp: r.Timestamp, Attrs: r.Attrs, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
}

// note says in which unit event times seem to be.
func (m *misfitting) note(cfg config.Config) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.fitting.Found()
	switch {
	case found.Factor > 0:
		_, source, err := cfg.EventTime.ExtractFrom(m.last)
		if err != nil { // its schema is not known here
			return fmt.Sprintf("event times are of 1970: they seem to be too small by a factor of %d; check the unit in TIDEMARK_EVENT_TIME", found.Factor)
		}
		what, cure := cfg.EventTime.TooSmall(source, found.Factor)
		return "event times are of 1970: " + what + "; " + cure
	case found.Apart > 0:
		return fmt.Sprintf("event times are %d years before the records' own timestamps: is TIDEMARK_EVENT_TIME right?", int(found.Apart.Hours()/24/365))
	}
	return ""
}
