package browser

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What is wrong is on top of the page, in words, and once.
func TestPageOfTrouble(t *testing.T) {
	for _, x := range []struct {
		name    string
		trouble func(s *served)
		state   string
		reason  string
	}{
		{"invalid", func(s *served) { s.each(func(int) string { return "yesterday" }) }, "DEGRADED", "had a usable event time"},
		{"late", func(s *served) {
			s.each(func(i int) string {
				if i%20 == 0 {
					return fmt.Sprint(time.Now().UnixMilli())
				}
				return fmt.Sprint(time.Now().Add(-time.Hour).UnixMilli())
			})
		}, "DEGRADED", "were late, mostly behind-watermark"},
		{"transaction", func(s *served) {
			s.leaveOpen(topic+".ordered", "import")
			s.leaveOpen(topic, "upstream")
			s.payments(2, 40, time.Minute)
		}, "DEGRADED", `another program (transactional id "import") holds payments.ordered partition 0 open`},
		{"away", func(s *served) {
			s.payments(2, 40, 3*time.Second)
			time.Sleep(2 * time.Second)
			s.kafka.Close()
		}, "UNREACHABLE", "no broker answers"},
		{"healthy", func(s *served) { s.payments(2, 40, time.Minute) }, "HEALTHY", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := sidecar(t, 2)
			x.trouble(s)
			b := open(t, s.address, desk)
			b.tolerate()
			const state, reasons = `document.getElementById("state").textContent`, `document.getElementById("reason").textContent`
			b.until("the state is "+x.state, fmt.Sprintf(`%s.includes(%s) && %s.includes(%s)`, state, quoted(x.state), reasons, quoted(x.reason)))
			if x.reason != "" && ask[int](b, fmt.Sprintf(`%s.split(%s).length`, reasons, quoted(x.reason))) > 3 { // once for each partition
				t.Errorf("said too often: %s", ask[string](b, reasons))
			}
			b.legible()
			b.look("trouble-"+x.name, 0)
		})
	}
}

// each writes records with event times as told, to the first partitions, until the test ends.
func (s *served) each(event func(i int) string) {
	for i := range 200 {
		s.cl.Produce(context.Background(), &kgo.Record{
			Topic: topic, Partition: int32(i % 2), Value: make([]byte, 200), Headers: []kgo.RecordHeader{{Key: "event-time", Value: []byte(event(i / 2))}},
		}, nil)
	}
}

// leaveOpen leaves a transaction of somebody else open.
func (s *served) leaveOpen(topic, id string) {
	s.t.Helper()
	tx, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.ListenAddrs()[0]), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(id))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(tx.Close)
	if err := tx.BeginTransaction(); err != nil {
		s.t.Fatal(err)
	}
	if err := tx.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Value: make([]byte, 20)}).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}
