// Package corrections tests the example of a consumer that upserts corrections.
package corrections

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/repair"
)

const totals = `
import json, sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("SELECT key, minute, total, corrections FROM totals")
print(json.dumps([[f"{key} {minute}", total, corrections] for key, minute, total, corrections in rows]))
`

// The table is right at first but for what came too late, and after the repair it
// is what a batch job over the source would make of it, although the consumer was
// killed again and again.
func TestKafkaCorrections(t *testing.T) {
	brokers, python := os.Getenv("TIDEMARK_TEST_BROKERS"), os.Getenv("TIDEMARK_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if brokers == "" {
		t.Skip("needs a real Kafka: set TIDEMARK_TEST_BROKERS")
	}
	if out, err := exec.Command(python, "-c", "import confluent_kafka").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s: %v: %s", python, err, out)
		}
		t.Skipf("needs the package confluent-kafka (TIDEMARK_TEST_PYTHON names an interpreter that has it): %v: %s", err, out)
	}
	topic := fmt.Sprintf("corrections-%x", rand.Uint32())
	cfg, err := config.Load([]string{
		"TIDEMARK_BROKERS=" + brokers, "TIDEMARK_TOPICS=" + topic, "TIDEMARK_GROUP=tidemark-" + topic, "TIDEMARK_INSTANCE=a",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=1s", "TIDEMARK_IDLE_TIMEOUT=1s", "TIDEMARK_SESSION_TIMEOUT=6s",
	})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.UnknownTopicRetries(50))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 2, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	stopped := func() {
		t.Helper()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}

	database := filepath.Join(t.TempDir(), "totals.db")
	rnd := rand.New(rand.NewPCG(7, 7))
	at := time.Now().Add(-2 * time.Hour).Truncate(time.Hour).UnixMilli()
	want, late := map[string]int64{}, 0
	write := func(n int) {
		var rs []*kgo.Record
		for range n {
			at += rnd.Int64N(400)
			when := at
			if rnd.IntN(20) == 0 {
				when -= 60_000 + rnd.Int64N(60_000)
			}
			key, amount := fmt.Sprint("k", rnd.IntN(3)), rnd.Int64N(100)
			want[fmt.Sprint(key, " ", when/60_000*60_000)] += amount
			rs = append(rs, &kgo.Record{
				Topic: topic, Key: []byte(key), Value: strconv.AppendInt(nil, amount, 10),
				Headers: []kgo.RecordHeader{{Key: "event-time", Value: strconv.AppendInt(nil, when, 10)}},
			})
		}
		if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	consume := func() (kill func()) {
		cmd := exec.Command(python, "totals.py", brokers, topic, database)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		t.Cleanup(kill)
		return kill
	}
	table := func() (map[string]int64, int) {
		out, err := exec.Command(python, "-c", totals, database).Output()
		var rows [][3]any
		if err != nil || json.Unmarshal(out, &rows) != nil {
			return nil, 0 // it is not there yet
		}
		sums, corrections := map[string]int64{}, 0
		for _, r := range rows {
			sums[r[0].(string)] = int64(r[1].(float64))
			corrections += int(r[2].(float64))
		}
		return sums, corrections
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(deadline) {
				stopped()
				t.Fatalf("waited in vain for: %s", what)
			}
		}
	}
	mend := func() {
		o := repair.Options{Reasons: repair.Behind, TTL: time.Hour, Report: func(r repair.Report) error { late += int(r.Corrections); return nil }}
		if err := repair.Run(t.Context(), cfg, o, log); err != nil {
			t.Fatal(err)
		}
	}
	write(2000) // the brokers know the topic once it is written to
	go func() { ended <- proxy.Run(ctx, cfg, log) }()
	for range 3 {
		kill := consume()
		rows := func() int { sums, _ := table(); return len(sums) }
		before := rows()
		write(1000)
		await("answers", func() bool { return rows() > before })
		kill()
	}
	await("late records", func() bool { // all of them: the sidecar is done with the source
		ends, err := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), topic+".late")
		return err == nil && ends.Error() == nil
	})
	mend()
	kill := consume()
	await("corrections", func() bool {
		_, corrections := table()
		return corrections > 0 && corrections == late
	})
	kill()
	consume()
	await("what a batch job says", func() bool {
		mend() // what the sidecar has come to meanwhile
		sums, corrections := table()
		return corrections == late && maps.Equal(sums, want)
	})
	stopped()
}
