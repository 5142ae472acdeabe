package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/status"
)

// sentNow is a record with a value, or headers, written now.
func sentNow(topic, value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: topic, Value: []byte(value), Timestamp: time.Now()}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

// TestWrongUnitIsLoud: event times in another unit than they are read as are reported with
// the format that is right, within some records, once for a topic, and shown until they are
// mended. What is merely old is not called wrong.
func TestWrongUnitIsLoud(t *testing.T) {
	now := func() time.Time { return time.Now().Add(-time.Second) }
	for name, c := range map[string]struct {
		source string
		record func(topic string) *kgo.Record
		want   string // in the log; empty: no line
		cure   string
		unit   bool
	}{
		"seconds in a field": {"json:ts", func(topic string) *kgo.Record {
			return sentNow(topic, fmt.Sprintf(`{"ts":%d}`, now().Unix()))
		}, "json:ts seems to have seconds, and is read as milliseconds", "TIDEMARK_EVENT_TIME=json:ts:unix-s", true},
		"seconds in a header": {"header:event-time,timestamp", func(topic string) *kgo.Record {
			return sentNow(topic, "x", "event-time", fmt.Sprint(now().Unix()))
		}, "header:event-time seems to have seconds", "TIDEMARK_EVENT_TIME=header:event-time:unix-s,timestamp", true},
		"milliseconds read as microseconds": {"json:ts:unix-us", func(topic string) *kgo.Record {
			return sentNow(topic, fmt.Sprintf(`{"ts":%d}`, now().UnixMilli()))
		}, "seems to have milliseconds, and is read as microseconds", "json:ts:unix-ms", true},
		"a timestamp in seconds": {"timestamp", func(topic string) *kgo.Record {
			r := sentNow(topic, "x")
			r.Timestamp = time.UnixMilli(now().Unix())
			return r
		}, "timestamp seems to have seconds", "have producers set the timestamps of records in milliseconds", true},
		"birthdays": {"json:ts", func(topic string) *kgo.Record {
			return sentNow(topic, fmt.Sprintf(`{"ts":%d}`, now().AddDate(-25, 0, 0).UnixMilli()))
		}, "event times of json:ts are 25 years before the records' own timestamps", "is when the record's event happened", false},
		"right": {"json:ts:unix-s", func(topic string) *kgo.Record {
			return sentNow(topic, fmt.Sprintf(`{"ts":%d}`, now().Unix()))
		}, "", "", false},
		"a replay of old data": {"json:ts", func(topic string) *kgo.Record {
			r := sentNow(topic, fmt.Sprintf(`{"ts":%d}`, now().AddDate(-1, 0, 0).UnixMilli()))
			r.Timestamp = now().AddDate(-1, 0, 0)
			return r
		}, "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c2 *cluster) {
				topic := c2.topic(3)
				s := c2.start(topic, "TIDEMARK_EVENT_TIME="+c.source)
				for i := range 60 {
					r := c.record(topic)
					r.Partition = int32(i % 3)
					c2.produce(c2.cl, r)
					time.Sleep(100 * time.Millisecond)
				}
				c2.awaitRead(s)
				lines := s.voice.heard("finding=")
				p := s.of(topic, 1)
				if c.want == "" {
					if len(lines) > 0 || p.EventTimeFinding != "" {
						t.Errorf("found %q, %q", p.EventTimeFinding, lines)
					}
					s.stop()
					return
				}
				if len(lines) != 1 || !strings.Contains(lines[0], c.want) || !strings.Contains(lines[0], c.cure) || !strings.Contains(lines[0], "level=WARN") {
					t.Errorf("the log has %q, want %q and %q once", lines, c.want, c.cure)
				}
				if !strings.Contains(p.EventTimeFinding, c.want) || p.WrongUnit != c.unit {
					t.Errorf("shown is %q, %v", p.EventTimeFinding, p.WrongUnit)
				}
				if st := s.status(); c.unit != (st.State == status.Degraded && strings.Contains(st.Reason, c.want)) {
					t.Errorf("it is %s: %s", st.State, st.Reason)
				}
				if found := s.of(topic, 0).EventTimeFinding; found != p.EventTimeFinding {
					t.Errorf("in another partition it is %q", found)
				}
				s.stop()
			})
		})
	}
}

// TestAbsentSource: a source that the records do not have is reported with its name, the
// fallback, and what was probably meant; as information where the default is in force and
// nothing else looks like an event time.
func TestAbsentSource(t *testing.T) {
	const unset = ""
	for name, c := range map[string]struct {
		env    string
		value  string
		header string
		level  string // of the line; empty: no line
		words  []string
	}{
		"the default, and nothing else": {unset, "x", "trace", "level=INFO", []string{"source=header:event-time", "fallback=timestamp", "records=1000"}},
		"the default, and a field":      {unset, `{"created_at":"2000-01-01T00:00:00Z"}`, "trace", "level=WARN", []string{"similar=json:created_at", "TIDEMARK_EVENT_TIME=json:created_at,timestamp"}},
		"the default, and capitals":     {unset, "x", "Event-Time", "level=WARN", []string{"similar=header:Event-Time", "TIDEMARK_EVENT_TIME=header:Event-Time,timestamp", "capitals"}},
		"misspelt":                      {"json:createdAt,timestamp", `{"created_at":"2000-01-01T00:00:00Z"}`, "trace", "level=WARN", []string{"source=json:createdAt", "fallback=timestamp", "similar=json:created_at", "TIDEMARK_EVENT_TIME=json:created_at,timestamp"}},
		"explicit":                      {"header:event-time,timestamp", "x", "trace", "level=WARN", []string{"source=header:event-time", "fallback=timestamp"}},
		"timestamps on purpose":         {"timestamp", `{"created_at":"2000-01-01T00:00:00Z"}`, "Event-Time", "", nil},
		"present":                       {"header:event-time,timestamp", "x", "event-time", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c2 *cluster) {
				topic := c2.topic(2)
				s := c2.start(topic, "TIDEMARK_EVENT_TIME="+c.env)
				for i := range 1200 {
					r := sentNow(topic, c.value, c.header, fmt.Sprint(time.Now().UnixMilli()))
					r.Partition = int32(i % 2)
					if i == 500 && c.header == "trace" { // one is none
						r.Headers[0].Key = "event-time"
					}
					c2.produce(c2.cl, r)
					time.Sleep(5 * time.Millisecond)
				}
				c2.awaitRead(s)
				lines := s.voice.heard("source=")
				p := s.of(topic, 0)
				if c.level == "" {
					if len(lines) > 0 || p.Absent != "" {
						t.Errorf("%q, shown is %q", lines, p.Absent)
					}
					s.stop()
					return
				}
				if len(lines) != 1 || !strings.Contains(lines[0], c.level) {
					t.Fatalf("the log has %q", lines)
				}
				for _, word := range c.words {
					if word == "records=1000" && strings.Contains(lines[0], "records=999") {
						continue // one has it
					}
					if !strings.Contains(lines[0], word) {
						t.Errorf("%q is not in %q", word, lines[0])
					}
				}
				if p.Absent == "" || len(p.DecidedBy) != 3 || p.DecidedBy[1] < 590 || p.DecidedBy[2] != 0 {
					t.Errorf("shown is %q, decided %d", p.Absent, p.DecidedBy)
				}
				s.stop()
			})
		})
	}
}

// TestSourceDisappears: a source that records had, and have no more, is reported whatever is
// configured; so is one of a quiet topic.
func TestSourceDisappears(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic)
		send := func(n int, pause time.Duration, headers ...string) {
			for range n {
				c.produce(c.cl, sentNow(topic, "x", headers...))
				time.Sleep(pause)
			}
		}
		send(90, time.Second, "event-time", fmt.Sprint(time.Now().UnixMilli()))
		if lines := s.voice.heard("source="); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
		send(130, time.Second)
		c.awaitRead(s)
		lines := s.voice.heard("source=")
		if len(lines) != 1 || !strings.Contains(lines[0], "any more") || !strings.Contains(lines[0], "level=WARN") {
			t.Errorf("%q", lines)
		}
		if got := s.of(topic, 0).DecidedBy; !slices.Equal(got, []int64{90, 130, 0}) {
			t.Errorf("decided %d", got)
		}
		s.stop()
	})
}
