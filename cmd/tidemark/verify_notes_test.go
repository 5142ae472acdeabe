package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

func notesConfig(t *testing.T, eventTime string) config.Config {
	t.Helper()
	cfg, err := config.Load([]string{"TIDEMARK_TOPICS=orders", "TIDEMARK_EVENT_TIME=" + eventTime})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestVerifyNotes: a result that keeps the contract and is of no use is noted, in front of a
// verdict that stays what it is.
func TestVerifyNotes(t *testing.T) {
	cfg := notesConfig(t, "header:at")
	for _, c := range []struct {
		what    string
		ordered int64
		late    map[string]int64
		want    string // "": nothing
	}{
		{"all are invalid", 0, map[string]int64{"invalid-time": 300}, "none of the 300 records that came out has a usable event time (invalid-time)"},
		{"one came, and it is invalid", 0, map[string]int64{"invalid-time": 1}, "none of the 1 records"},
		{"invalid, and repeats", 0, map[string]int64{"invalid-time": 3, "duplicate": 9}, "none of the 3 records"},
		{"most are late", 100, map[string]int64{"behind-watermark": 850, "future": 50}, "900 of the 1000 records that came out are late (behind-watermark 850, future 50), which is more than TIDEMARK_LATE_LIMIT=0.05"},
		{"some are invalid", 100, map[string]int64{"invalid-time": 20}, "20 of the 120 records that came out are late (invalid-time 20)"},
		{"few are late", 1000, map[string]int64{"behind-watermark": 9}, ""},
		{"repeats", 10, map[string]int64{"duplicate": 900}, ""},
		{"nothing came out", 0, nil, ""},
	} {
		reports := []verify.Report{{Topic: "orders", Ordered: c.ordered, Late: c.late}}
		var text, asJSON bytes.Buffer
		fits := map[string]*misfitting{"orders": {}}
		if err := showReports(&text, cfg, reports, fits, false); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		out := text.String()
		if got := strings.Contains(out, "\nnote: orders: "); got != (c.want != "") || !strings.Contains(out, c.want) || !strings.HasSuffix(out, "\n\nHOLDS\n") {
			t.Errorf("%s:\n%s", c.what, out)
		}
		var shown struct{ Topics []struct{ Notes []string } }
		if err := showReports(&asJSON, cfg, reports, fits, true); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := json.Unmarshal(asJSON.Bytes(), &shown); err != nil || len(shown.Topics[0].Notes) > 0 != (c.want != "") {
			t.Errorf("%s: %v: %s", c.what, err, asJSON.String())
		}
	}
}

// TestVerifyNotesWrongClock: event times that do not fit the records' own timestamps are noted,
// with what to set.
func TestVerifyNotesWrongClock(t *testing.T) {
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	for _, c := range []struct {
		what, value, want string
	}{
		{"seconds as milliseconds", fmt.Sprint(at.Unix()), "TIDEMARK_EVENT_TIME=header:at:unix-s"},
		{"an old field", fmt.Sprint(at.AddDate(-20, 0, 0).UnixMilli()), "years before the records' own timestamps"},
		{"right", fmt.Sprint(at.UnixMilli()), ""},
	} {
		cfg := notesConfig(t, "header:at")
		m := &misfitting{}
		read := m.watch(cfg.EventTime.Extract)
		for range 20 {
			if _, err := read(&kgo.Record{Timestamp: at, Headers: []kgo.RecordHeader{{Key: "at", Value: []byte(c.value)}}}); err != nil {
				t.Fatal(err)
			}
		}
		notes := notesOn(verify.Report{Topic: "orders", Ordered: 20}, cfg, m)
		if len(notes) > 0 != (c.want != "") || !strings.Contains(strings.Join(notes, "\n"), c.want) {
			t.Errorf("%s: %q", c.what, notes)
		}
	}
}

// TestVerifyCommandNotes: the command has the notes of the topics that it reads.
func TestVerifyCommandNotes(t *testing.T) {
	verifyCluster(t, false)
	cl, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("TIDEMARK_BROKERS")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for _, at := range []string{"1000", "2000", "3000"} {
		r := &kgo.Record{Topic: "orders.late", Timestamp: time.UnixMilli(1), Headers: []kgo.RecordHeader{
			{Key: "at", Value: []byte(at)}, {Key: "tidemark-late-reason", Value: []byte("invalid-time")}, {Key: "tidemark-source-offset", Value: []byte(at[:1])},
		}}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitNotHeld || !strings.Contains(out, "\nnote: orders: none of the 3 records that came out has a usable event time") {
		t.Errorf("exit %d, %v:\n%s", exitCode(err), err, out)
	}
}

// TestVerifyNamesPartitions: partitions that are not judged by event time are named so that
// they cannot be taken for a number.
func TestVerifyNamesPartitions(t *testing.T) {
	cfg := notesConfig(t, "timestamp")
	for _, others := range []struct {
		of   []int32
		want string
	}{{[]int32{0}, "orders: nothing in partition 0 is judged by event time: "}, {[]int32{0, 2}, "orders: nothing in partitions 0, 2 is judged by event time: "}} {
		var reports []verify.Report
		for _, n := range others.of {
			reports = append(reports, verify.Report{Topic: "orders", Partition: n, OtherTimes: true})
		}
		var out bytes.Buffer
		if err := showReports(&out, cfg, append(reports, verify.Report{Topic: "orders", Partition: 7}), map[string]*misfitting{"orders": {}}, false); err != nil || !strings.HasPrefix(out.String(), others.want) {
			t.Errorf("%v:\n%s", err, out.String())
		}
	}
}
