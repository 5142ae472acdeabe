package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// repairCluster has a late topic of two partitions; the environment tells of it.
// Every line is a record: partition, event time (ms), reason, minutes on the topic.
func repairCluster(t *testing.T, lines ...string) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "orders.late"),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	t.Setenv("TIDEMARK_BROKERS", strings.Join(fake.ListenAddrs(), ","))
	t.Setenv("TIDEMARK_TOPICS", "orders")
	t.Setenv("TIDEMARK_EVENT_TIME", "header:at")
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for i, line := range lines {
		var partition int32
		var at, reason string
		var minutes int
		if _, err := fmt.Sscan(line, &partition, &at, &reason, &minutes); err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: "orders.late", Partition: partition}
		for _, h := range [][2]string{
			{"at", at},
			{"tidemark-late-reason", reason},
			{"tidemark-source-offset", fmt.Sprint(i)},
			{"tidemark-late-at", fmt.Sprint(time.Now().Add(-time.Duration(minutes) * time.Minute).UnixMilli())},
		} {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func runRepairCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRepairCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestRepairCommand(t *testing.T) {
	repairCluster(t, "0 3000 behind-watermark 1", "0 1000 overflow 1", "0 2000 future 1", "1 9000 behind-watermark 150", "1 4000 behind-watermark 30")
	const table = `corrections         partition  %s  expired  other reasons  oldest event time         newest event time         
orders.corrections  0          2%s  0        1              1970-01-01T00:00:01.000Z  1970-01-01T00:00:03.000Z  future 1
orders.corrections  1          1%s  1        0              1970-01-01T00:00:04.000Z  1970-01-01T00:00:04.000Z  
all                            3%s  1        1              1970-01-01T00:00:01.000Z  1970-01-01T00:00:04.000Z  future 1
`
	shown := func(word string) string {
		pad := strings.Repeat(" ", len(word)-1)
		return fmt.Sprintf(table, word, pad, pad, pad)
	}
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"--dry-run"}, shown("to publish")},
		{nil, shown("published")},
		{nil, "nothing new on the late topics\n"},
	} {
		if out, err := runRepairCommand(t, step.args...); err != nil || out != step.want {
			t.Errorf("%v: %v\n%s\nwant\n%s", step.args, err, out, step.want)
		}
	}
}

func TestRepairCommandJSON(t *testing.T) {
	repairCluster(t, "0 3000 behind-watermark 1", "0 1000 invalid-time 1")
	out, err := runRepairCommand(t, "--json", "--to", "mended", "--reasons", "behind-watermark", "--ttl", "90s")
	var got struct {
		DryRun      bool `json:"dry_run"`
		Corrections int
		Partitions  []struct {
			Topic, Late, To string
			Partition       int
			Other           map[string]int `json:"other_reasons"`
			Newest          int64          `json:"newest_event_time_ms"`
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	const want = "{DryRun:false Corrections:1 Partitions:[{Topic:orders Late:orders.late To:mended Partition:0 Other:map[invalid-time:1] Newest:3000}]}"
	if s := fmt.Sprintf("%+v", got); err != nil || s != want {
		t.Errorf("%v\n%s", err, s)
	}
}

func TestRepairCommandRefuses(t *testing.T) {
	repairCluster(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--reasons", "late"}, `--reasons: "late" is not a reason`},
		{[]string{"--ttl", "0s"}, "--ttl: 0s is not above 0"},
		{[]string{"--every", "0s"}, "--every: 0s is not above 0"},
		{[]string{"--every", "1m", "--dry-run"}, "exclude each other"},
		{[]string{"--to", "orders"}, "a source topic"},
		{[]string{"--to", "orders.ordered"}, "the ordered topic of orders"},
	} {
		if _, err := runRepairCommand(t, test.args...); exitCode(err) != exitUsage || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: exit %d: %v", test.args, exitCode(err), err)
		}
	}
	t.Setenv("TIDEMARK_TOPICS", "nothing")
	if _, err := runRepairCommand(t); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "late topic nothing.late: it does not exist") {
		t.Errorf("exit %d: %v", exitCode(err), err)
	}
}
