package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
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
	besideOthers(t)
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
				topic := c2.topic(4)
				s := c2.start(topic, "TIDEMARK_EVENT_TIME="+c.source)
				for i := range 120 {
					r := c.record(topic)
					if r.Partition = int32(i % 3); i >= 60 {
						r.Partition = 3
					}
					c2.produce(c2.cl, r)
					if time.Sleep(100 * time.Millisecond); i == 60 {
						time.Sleep(3 * time.Minute) // no news, from another partition
					}
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
				// Once for all partitions, and once more, for it went on after the pause.
				if len(lines) != 2 || !hasAll(lines[0], c.want, c.cure, "level=WARN") || !hasAll(lines[1], c.want, c.cure, "partition=3") {
					t.Errorf("the log has %q, want %q and %q twice", lines, c.want, c.cure)
				}
				if c.unit && p.Finding != clocks.Right {
					t.Errorf("clocks are blamed: %v", p.Finding)
				}
				if !hasAll(p.EventTimeFinding, c.want) || (p.WrongUnit != "") != c.unit || c.unit && !hasAll(p.EventTimeFinding, c.cure) {
					t.Errorf("shown is %q, %v", p.EventTimeFinding, p.WrongUnit)
				}
				if st := s.status(); c.unit != (st.State == status.Degraded && hasAll(st.Reason, c.want, c.cure)) {
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

// TestWrongUnitOfMarkers: watermarks of records in another unit than they are read as are
// reported with the format that is right; as milliseconds they would release nothing.
func TestWrongUnitOfMarkers(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated", "TIDEMARK_WATERMARK_HEADER=mark")
		for i := range 120 {
			r := sentNow(topic, "x", "event-time", fmt.Sprint(time.Now().UnixMilli()), "mark", fmt.Sprint(time.Now().Unix()-5))
			r.Partition = int32(i % 2)
			c.produce(c.cl, r)
			time.Sleep(200 * time.Millisecond)
		}
		c.awaitRead(s)
		const finding, cure = "header mark seems to have seconds, and is read as milliseconds", "set TIDEMARK_WATERMARK_HEADER=mark:unix-s"
		s.hears(1, "have the wrong unit", "level=WARN", "offset=3", finding, cure)
		st := s.status()
		if st.State != status.Degraded || !hasAll(st.Reason, finding, cure) {
			t.Errorf("it is %s: %s", st.State, st.Reason)
		}
		for _, p := range st.Partitions {
			if p.Records > 0 && p.State == status.Active && !hasAll(p.Hold.Words, "TIDEMARK_WATERMARK_HEADER") || hasAll(p.Hold.Words, "TIDEMARK_EVENT_TIME") {
				t.Errorf("partition %d %s", p.Partition, p.Hold.Words)
			}
		}
		s.stop()
		right := c.start(topic, "TIDEMARK_GROUP=right", "TIDEMARK_ORDERED_SUFFIX=.o", "TIDEMARK_LATE_SUFFIX=.l", "TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated", "TIDEMARK_WATERMARK_HEADER=mark:unix-s")
		c.awaitRead(right)
		right.hears(0, "have the wrong unit")
		right.stop()
	})
}

// TestAbsentFromAFew: whoever tries it with a few records is told, too, and of the format that
// they have, though no more come.
func TestAbsentFromAFew(t *testing.T) {
	for value, want := range map[string]string{
		`{"created_at":%d}`:                    "TIDEMARK_EVENT_TIME=json:created_at:unix-s,timestamp",
		`{"created_at":"2000-01-01T00:%[1]d"}`: "TIDEMARK_EVENT_TIME=json:created_at:local:UTC,timestamp",
	} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(2)
			s := c.start(topic, "TIDEMARK_EVENT_TIME=json:createdAt,timestamp", "TIDEMARK_IDLE_TIMEOUT=0")
			for i := range 30 {
				v := fmt.Sprintf(value, time.Now().Unix())
				if strings.Contains(value, "T00") {
					v = fmt.Sprintf(value, 10+i)
				}
				r := sentNow(topic, v, "trace", "x")
				r.Partition = int32(i % 2)
				c.produce(c.cl, r)
			}
			c.awaitRead(s)
			c.await("a line about the source", func() bool { return len(s.voice.heard("source=json:createdAt")) > 0 })
			lines := s.voice.heard("source=json:createdAt")
			if len(lines) != 1 || !strings.Contains(lines[0], want) || !strings.Contains(lines[0], "records=30 ") || s.of(topic, 1).Absent == "" {
				t.Errorf("%q, shown is %q", lines, s.of(topic, 1).Absent)
			}
			s.stop()
		})
	}
}

// TestAbsentSource: a source that the records do not have is reported with its name, the
// fallback, and what was probably meant; as information where the default is in force and
// nothing else looks like an event time.
func TestAbsentSource(t *testing.T) {
	besideOthers(t)
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
		"the default, and capitals":     {unset, "x", "Event-Time", "level=WARN", []string{"similar=header:Event-Time", "TIDEMARK_EVENT_TIME=header:Event-Time,timestamp", "capitals", "position new-epoch"}},
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
				if len(lines) != 1 || !strings.Contains(lines[0], c.level) { // it goes on for seconds
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
				if st := s.status(); st.State != status.Healthy { // no partition has had 1,000
					t.Errorf("it is %s: %s", st.State, st.Reason)
				}
				s.stop()
			})
		})
	}
}

// TestAbsentEverywhereIsAReason: where somebody has said where event times are, and no record
// of any topic has them there, all of them going by their own timestamps is a reason; it names
// the setting, and goes when one record has them.
func TestAbsentEverywhereIsAReason(t *testing.T) {
	besideOthers(t)
	for name, c := range map[string]struct {
		env, value, header string
		want               []string // in the reason; none: it is healthy
	}{
		"misspelt":                  {"json:createdAt,timestamp", `{"created_at":"2000-01-01T00:00:00Z"}`, "trace", []string{"json:createdAt", "timestamp decides", "set TIDEMARK_EVENT_TIME=json:created_at,timestamp"}},
		"no such header":            {"header:event-time,timestamp", "x", "trace", []string{"header:event-time", "leave the source out"}},
		"two sources":               {"header:event-time,json:ts,timestamp", "{}", "trace", []string{"header:event-time", "json:ts"}},
		"the default":               {"", "x", "trace", nil},
		"the default, and capitals": {"", "x", "Event-Time", []string{"header:Event-Time", "not by header:event-time", "set TIDEMARK_EVENT_TIME=header:Event-Time,timestamp, run `tidemark position new-epoch`"}},
		"the default, and a field":  {"", `{"created_at":"2000-01-01T00:00:00Z"}`, "trace", nil}, // it is a guess
		"on purpose":                {"timestamp", `{"created_at":"2000-01-01T00:00:00Z"}`, "trace", nil},
		"another is there":          {"json:payload.ts,json:ts,timestamp", `{"ts":1}`, "trace", nil}, // of one setting for two converters
		"one record has it":         {"header:event-time,timestamp", "x", "event-time", nil},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c2 *cluster) {
				topic := c2.topic(2)
				s := c2.start(topic, "TIDEMARK_EVENT_TIME="+c.env)
				for i := range 2300 {
					r := sentNow(topic, strings.Replace(c.value, `"ts":1`, fmt.Sprintf(`"ts":%d`, time.Now().UnixMilli()), 1), "trace", "x")
					if c.header == "Event-Time" && i%29 > 0 { // nearly all
						r.Headers[0] = kgo.RecordHeader{Key: c.header, Value: fmt.Append(nil, time.Now().UnixMilli())}
					}
					if r.Partition = int32(i % 2); i == 1000 {
						r.Headers[0] = kgo.RecordHeader{Key: c.header, Value: fmt.Append(nil, time.Now().UnixMilli())}
					}
					c2.produce(c2.cl, r)
					time.Sleep(time.Millisecond)
				}
				c2.awaitRead(s)
				st := s.status()
				if (st.State == status.Degraded) != (c.want != nil) || len(st.Reasons) != min(len(c.want), 1) || !hasAll(st.Reason, c.want...) {
					t.Errorf("it is %s: %q", st.State, st.Reasons)
				}
				if c.want != nil && !strings.HasPrefix(st.Reason, topic+": all records are ordered by their own timestamps") {
					t.Errorf("%q", st.Reason)
				}
				if name == "no such header" {
					c2.produce(c2.cl, sentNow(topic, "x", "event-time", fmt.Sprint(time.Now().UnixMilli())))
					c2.awaitRead(s)
					time.Sleep(2 * time.Second)
					if st := s.status(); st.State != status.Healthy {
						t.Errorf("it is %s: %s", st.State, st.Reason)
					}
				}
				s.stop()
			})
		})
	}
}

// TestInvalidIsExplained: a record without a usable event time is told of with its place, what
// is wrong with it, and what to set; the last one of a partition stays to be seen.
func TestInvalidIsExplained(t *testing.T) {
	besideOthers(t)
	for name, c := range map[string]struct {
		env    string
		record func(topic string) *kgo.Record
		err    string
		hint   string
	}{
		"microseconds": {"json:ts", func(topic string) *kgo.Record {
			return sentNow(topic, fmt.Sprintf(`{"ts":%d}`, time.Now().UnixMicro()))
		}, "field ts with a number of 15 digits", "if that is what producers write, stop, set TIDEMARK_EVENT_TIME=json:ts:unix-us, run `tidemark position new-epoch`"},
		"nanoseconds in a header": {"header:event-time,timestamp", func(topic string) *kgo.Record {
			return sentNow(topic, "x", "event-time", fmt.Sprint(time.Now().UnixNano()))
		}, "outside the years 1678 to 2262", "if that is what producers write, stop, set TIDEMARK_EVENT_TIME=header:event-time:unix-ns,timestamp"},
		"no time zone": {"json:a.ts", func(topic string) *kgo.Record {
			return sentNow(topic, `{"a":{"ts":"2000-01-01T00:00:00"}}`)
		}, "does not say of which time zone it is", "stop, set TIDEMARK_EVENT_TIME=json:a.ts:local:UTC, or the zone whose clock it is"},
		"misspelt": {"json:createdAt", func(topic string) *kgo.Record {
			return sentNow(topic, `{"created_at":"2000-01-01T00:00:00Z"}`)
		}, "the record has none of json:createdAt", "if json:created_at, which this record has, is the event time, stop, set TIDEMARK_EVENT_TIME=json:created_at"},
		"nothing like it": {"json:createdAt", func(topic string) *kgo.Record {
			return sentNow(topic, `{"x":1}`)
		}, "the record has none of json:createdAt", "check the name"},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, c2 *cluster) {
				topic := c2.topic(2)
				s := c2.start(topic, "TIDEMARK_EVENT_TIME="+c.env)
				for range 40 {
					r := c.record(topic)
					r.Partition = 1
					c2.produce(c2.cl, r)
					time.Sleep(10 * time.Millisecond)
				}
				c2.awaitRead(s)
				s.hears(1, "records without a usable event time", "level=WARN", "topic="+topic, "partition=1", "first_offset=0", c.err, c.hint)
				p := s.of(topic, 1)
				if p.Invalid.Offset != 39 || p.Invalid.Err == nil || !strings.Contains(p.Invalid.Err.Error(), c.err) || !strings.HasPrefix(p.Invalid.Hint, c.hint) {
					t.Errorf("shown is %v", p.Invalid)
				}
				if st := s.status(); st.State != status.Degraded || !hasAll(st.Reason, "none of the last 40 records", "offset 39", c.err, c.hint) {
					t.Errorf("it is %s: %s", st.State, st.Reason)
				}
				if p := s.of(topic, 0); p.Invalid.Err != nil {
					t.Errorf("of a partition without records: %v", p.Invalid)
				}
				s.stop()
			})
		})
	}
}

// TestFloodOfInvalid: producers that write another bad value each time get a line for each
// partition, then fewer and fewer, and nothing that grows.
func TestFloodOfInvalid(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		s := c.start(topic, "TIDEMARK_EVENT_TIME=json:ts")
		for i := range 2000 {
			r := sentNow(topic, fmt.Sprintf(`{"ts":"%d %d","k%d":1}`, i, time.Now().UnixNano(), i))
			r.Partition = int32(i % 2)
			c.produce(c.cl, r)
			time.Sleep(500 * time.Millisecond)
		}
		c.awaitRead(s)
		lines := s.voice.heard("records without a usable event time")
		if len(lines) != 2*6 { // after 0, 30, 90, 210, 450 and 930 s
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		if last := lines[len(lines)-1]; !hasAll(last, "level=WARN", "class=record", "records=48", "records_read=48", "first_offset=45", "total=93") {
			t.Error(last)
		}
		if n := s.proc.reporter.Snapshot().Record; n != 2000 {
			t.Errorf("%d are counted", n)
		}
		s.stop()
	})
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
		send(960, time.Second)
		c.awaitRead(s)
		if lines := s.voice.heard("any more"); len(lines) != 6 { // after 1, 2, 4, 8 and 16 minutes
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		if got := s.of(topic, 0).DecidedBy; !slices.Equal(got, []int64{90, 1090, 0}) {
			t.Errorf("decided %d", got)
		}
		s.stop()
	})
}
