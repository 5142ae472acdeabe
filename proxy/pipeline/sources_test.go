package pipeline

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// TestSourcesByTurns: the producers of one partition write a header and those of another do
// not. Records come in runs of one partition, so a source is there and is not by turns; that
// is nothing that changes, and it is told of once. One that is gone for good is.
func TestSourcesByTurns(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0), "TIDEMARK_EVENT_TIME=header:event-time,timestamp")
	var log bytes.Buffer
	x.line.Reporter = fault.NewReporter(slog.New(slog.NewTextHandler(&log, nil)))
	r := &kgo.Record{Topic: "raw", Timestamp: time.Unix(1_700_000_000, 0)}
	run := func(source int) {
		x.line.now += watermark.Instant(20 * time.Millisecond)
		for range 2 * sourceWindow {
			x.source = source
			x.countSource(r)
		}
	}
	for range 10_000 { // six minutes
		run(0)
		run(1)
	}
	if n := strings.Count(log.String(), "\n"); n > 1 {
		t.Errorf("%d lines:\n%.500s", n, log.String())
	}
	for range 10_000 {
		run(1)
	}
	if n := strings.Count(log.String(), "any more"); n != 1 {
		t.Errorf("its disappearance was told of %d times", n)
	}
}

// TestMarkersOfAnotherName: a header of nearly the name is what was meant, and the hint says so
// until markers come; one that goes on is told of again, less and less often.
func TestMarkersOfAnotherName(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0))
	var log bytes.Buffer
	x.line.Reporter = fault.NewReporter(slog.New(slog.NewTextHandler(&log, nil)))
	x.line.Config.Watermark = config.Punctuated
	if err := x.line.Config.WatermarkHeader.UnmarshalText([]byte("watermark:unix-s")); err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "trace"}, {Key: "Water-Mark"}}}
	for range 200 {
		x.line.now += watermark.Instant(time.Second)
		x.countMarker(false, r)
	}
	const cure = "set TIDEMARK_WATERMARK_HEADER=Water-Mark:unix-s"
	if got := log.String(); strings.Count(got, "no record carries a watermark") != 1 || !strings.Contains(got, cure) || !strings.Contains(got, "header=watermark ") {
		t.Errorf("%s", got)
	}
	if !strings.Contains(x.Ledger.NoMarkers, cure) {
		t.Errorf("the status has %q", x.Ledger.NoMarkers)
	}
	x.countMarker(true, r)
	if x.Ledger.NoMarkers != "" || len(x.line.unmarkedOf(x.Topic).partitions) > 0 {
		t.Errorf("there are some, and still %q", x.Ledger.NoMarkers)
	}
	for range 200 {
		x.line.now += watermark.Instant(time.Second)
		x.countMarker(false, new(kgo.Record))
	}
	if !strings.Contains(x.Ledger.NoMarkers, "no headers at all: have producers write header \"watermark\"") {
		t.Errorf("of records without headers the status has %q", x.Ledger.NoMarkers)
	}
}

// TestRareMarkers: where a lot comes, there are many records between two watermarks, and that is
// as it should be. Where none comes for a minute, it is told of, and so is the next one, at a
// bounded rate.
func TestRareMarkers(t *testing.T) {
	x := newPath(t, reorder.Fresh(0, -1, 0))
	var log bytes.Buffer
	x.line.Reporter = fault.NewReporter(slog.New(slog.NewTextHandler(&log, nil)))
	x.line.Config.Watermark = config.Punctuated
	r := new(kgo.Record)
	records := func(n int, every time.Duration) {
		for range n {
			x.line.now += watermark.Instant(every)
			x.countMarker(false, r)
		}
	}
	for range 1000 {
		records(5000, 10*time.Microsecond)
		x.countMarker(true, r)
	}
	if log.Len() > 0 {
		t.Errorf("%.500s", log.String())
	}
	for range 50 {
		records(100, time.Second)
		x.countMarker(true, r)
	}
	if again := strings.Count(log.String(), "carry watermarks again"); again != 1 {
		t.Errorf("in no time, it has said %d times that there are some again", again)
	}
}
