package check

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/bench/cluster"
	"github.com/tidemarkhq/tidemark/bench/workload"
)

// TestOutputs: what is right passes, and each way to be wrong is seen.
func TestOutputs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, "kfake", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, test := range []struct {
		name  string
		spoil func(ordered, late []*kgo.Record) (o, l []*kgo.Record)
		want  string // part of a fault; empty: none
	}{
		{"right", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return o, l }, ""},
		{"swapped", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			o[10], o[200] = o[200], o[10]
			return o, l
		}, "out-of-order"},
		{"lost", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return slices.Delete(o, 5, 6), l }, "lost"},
		{"lost late", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return o, l[1:] }, "lost"},
		{"twice", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return slices.Insert(o, 5, o[5]), l }, "duplicate"},
		{"changed", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			o[7].Key = []byte("other")
			return o, l
		}, "changed"},
		{"late in the order", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return append(o, l[0]), l[1:] }, "as if it were not"},
		{"late without cause", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) {
			return o[:len(o)-1], append(l, o[len(o)-1])
		}, "as if it were"},
		{"out too soon", func(o, l []*kgo.Record) ([]*kgo.Record, []*kgo.Record) { return append(o, last), l }, "duplicate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			topic := strings.ReplaceAll(test.name, " ", "-")
			o, l := sort(t, ctx, c, topic)
			o, l = test.spoil(o, l)
			write(t, ctx, c, topic+".ordered", o)
			write(t, ctx, c, topic+".late", l)
			found, err := Outputs(ctx, c.Addr, topic, 1, Rules{Orders: true})
			if err != nil {
				t.Fatal(err)
			}
			faults := strings.Join(found.Faults, "\n")
			if test.want == "" && faults != "" || !strings.Contains(faults, test.want) {
				t.Errorf("found %q, want %q", faults, test.want)
			}
		})
	}
}

var last *kgo.Record // of the source of the test that runs

// sort fills a topic and returns what should come out of it, made by sorting.
func sort(t *testing.T, ctx context.Context, c *cluster.Cluster, topic string) (ordered, late []*kgo.Record) {
	t.Helper()
	work, err := workload.Find("mobile")
	if err != nil {
		t.Fatal(err)
	}
	work.Partitions, work.Records = 1, 20_000
	if err := c.CreateTopics(ctx, topic, 1); err != nil {
		t.Fatal(err)
	}
	gate, err := workload.Fill(ctx, c.Addr, topic, work, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	if _, err := gate.Open(ctx); err != nil {
		t.Fatal(err)
	}
	newest := time.Time{}
	err = cluster.Read(ctx, c.Addr, topic, func(r *kgo.Record) {
		last = r
		if r.Timestamp.Before(newest.Add(-workload.Bound)) {
			late = append(late, r)
			return
		}
		if r.Timestamp.After(newest) {
			newest = r.Timestamp
		}
		ordered = append(ordered, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(ordered, func(a, b *kgo.Record) int { return a.Timestamp.Compare(b.Timestamp) })
	if len(late) < 10 {
		t.Fatalf("only %d are late", len(late))
	}
	return ordered[:len(ordered)-1], late
}

func write(t *testing.T, ctx context.Context, c *cluster.Cluster, topic string, records []*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, r := range records {
		own := *r
		own.Topic = topic
		records[i] = &own
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
