package verify

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

func framedID(r *kgo.Record) (string, bool) {
	if len(r.Value) < 5 {
		return "", false
	}
	return fmt.Sprint(binary.BigEndian.Uint32(r.Value[1:])), true
}

// What a registry said once, nobody can check; that the record says so, and names the
// schema of its value, is checked.
func TestCheckerOfSchemas(t *testing.T) {
	readable := func(*kgo.Record) (watermark.Time, error) { return 5e6, nil }
	unreadable := func(*kgo.Record) (watermark.Time, error) { return watermark.None, errTime }
	for _, tt := range []struct {
		name       string
		why        emit.Lateness
		eventTime  func(*kgo.Record) (watermark.Time, error)
		schemas    bool
		fault      string
		registered int64
	}{
		{"unknown then, known now", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.UnknownSchema, SchemaID: "7"}, readable, true, "", 1},
		{"unknown then and now", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.UnknownSchema, SchemaID: "7"}, unreadable, true, "", 0},
		{"known", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.KnownSchema, SchemaID: "7"}, unreadable, true, "", 0},
		{"known, and yet read", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.KnownSchema, SchemaID: "7"}, readable, true, "invalid-time, but its event time is 5 ms", 0},
		{"nothing said, and read", emit.Lateness{Verdict: reorder.InvalidTime}, readable, true, "invalid-time, but its event time is 5 ms", 0},
		{"another schema", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.UnknownSchema, SchemaID: "8"}, readable, true, `for schema 8, which is not that of its value`, 0},
		{"another known one", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.KnownSchema, SchemaID: "8"}, unreadable, true, `for schema 8`, 0},
		{"nothing needs schemas", emit.Lateness{Verdict: reorder.InvalidTime, Schema: emit.UnknownSchema, SchemaID: "7"}, readable, false, `for schema 7`, 0},
		{"another reason", emit.Lateness{Verdict: reorder.Future, Time: 5e6, Schema: emit.UnknownSchema, SchemaID: "7"}, readable, true, `future for schema 7`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := &kgo.Record{Topic: testTopic, Value: []byte{0, 0, 0, 0, 7, 1}, Timestamp: time.UnixMilli(9)}
			tt.why.Watermark = watermark.None
			late := emit.NewOutbox(emit.Headers{Prefix: "tidemark-"}).Late(emit.Source{Topic: testTopic}, raw, tt.why)
			rules := Rules{Topic: testTopic, Prefix: "tidemark-", EventTime: tt.eventTime}
			if tt.schemas {
				rules.SchemaID = framedID
			}
			c := NewChecker(rules, Scope{Next: 1, Committed: 1, Quiet: true})
			c.Raw(raw)
			c.Late(late)
			r := c.Finish()
			if r.Registered != tt.registered || r.Holds() != (tt.fault == "") {
				t.Errorf("%+v", r)
			}
			if first := r.Faults[KindWrongLate].First; tt.fault != "" && (len(first) == 0 || !strings.Contains(first[0].Why, tt.fault)) {
				t.Errorf("%+v", r.Faults)
			}
		})
	}
}

// That a timestamp is the time of arrival stands in the source record, and not in its
// copy.
func TestCheckerOfArrivals(t *testing.T) {
	arrived := kgo.NewRecordAttrs(kgo.RecordAttrsOpts{TimestampType: 1})
	eventTime := func(r *kgo.Record) (watermark.Time, error) {
		if r.Attrs.TimestampType() == 1 {
			return watermark.None, errTime
		}
		return 5e6, nil
	}
	for _, attrs := range []kgo.RecordAttrs{arrived, {}} {
		raw := &kgo.Record{Topic: testTopic, Timestamp: time.UnixMilli(5), Attrs: attrs}
		late := emit.NewOutbox(emit.Headers{Prefix: "tidemark-"}).Late(emit.Source{Topic: testTopic}, raw, emit.Lateness{Verdict: reorder.InvalidTime, Watermark: watermark.None})
		c := NewChecker(Rules{Topic: testTopic, Prefix: "tidemark-", EventTime: eventTime}, Scope{Next: 1, Committed: 1, Quiet: true})
		c.Raw(raw)
		c.Late(late)
		if r := c.Finish(); r.Holds() != (attrs == arrived) || len(c.arrived) > 0 {
			t.Errorf("%v: %+v", attrs, r)
		}
	}
}
