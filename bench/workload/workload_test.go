package workload

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestSameBytes: a stream is a function of case, seed and partition.
func TestSameBytes(t *testing.T) {
	for _, c := range Cases {
		a, b, other := newStream(c, "t", 1, 0), newStream(c, "t", 1, 0), newStream(c, "t", 2, 0)
		same := true
		for i := range 1000 {
			place := start.Add(time.Duration(i) * c.Step)
			x, y, z := a.record(place), b.record(place), other.record(place)
			if !equal(x, y) {
				t.Fatalf("%s: record %d differs", c.Name, i)
			}
			same = same && equal(x, z)
		}
		if same {
			t.Errorf("%s: the seed changes nothing", c.Name)
		}
	}
}

func equal(a, b *kgo.Record) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Timestamp.Equal(b.Timestamp)
}

// TestDisorder: each case is as late as its reason says.
func TestDisorder(t *testing.T) {
	for _, test := range []struct {
		name       string
		late       [2]float64 // share, least and most
		stragglers [2]float64 // more than 20 ms behind
	}{
		{"main", [2]float64{0.0005, 0.002}, [2]float64{0.04, 0.06}},
		{"sorted", [2]float64{0, 0}, [2]float64{0, 0}},
		{"bursts", [2]float64{0, 0}, [2]float64{0.03, 0.08}},
		{"slow", [2]float64{0, 0}, [2]float64{0.06, 0.07}},
		{"mobile", [2]float64{0.001, 0.02}, [2]float64{0.01, 0.04}},
		{"uniform", [2]float64{0, 0}, [2]float64{0.99, 1}},
	} {
		c, err := Find(test.name)
		if err != nil {
			t.Fatal(err)
		}
		const n = 200_000
		s := newStream(c, "t", 1, 0)
		late, stragglers := 0, 0
		newest := time.Time{}
		for i := range n {
			place := start.Add(time.Duration(i) * c.Step)
			at := place.Add(-s.lag())
			if at.Before(newest.Add(-Bound)) {
				late++
			}
			if at.Before(place.Add(-20 * time.Millisecond)) {
				stragglers++
			}
			if at.After(newest) {
				newest = at
			}
		}
		check := func(what string, count int, want [2]float64) {
			if got := float64(count) / n; got < want[0] || got > want[1] {
				t.Errorf("%s: %.4f are %s, want %v", test.name, got, what, want)
			}
		}
		check("late", late, test.late)
		check("stragglers", stragglers, test.stragglers)
	}
}

// TestKeys: every partition has keys, and Kafka's partitioner agrees.
func TestKeys(t *testing.T) {
	for _, c := range Cases {
		hasher := kgo.StickyKeyPartitioner(nil).ForTopic("t")
		for p := range c.Partitions {
			keys := keysOf(p, c.Partitions)
			if len(keys) == 0 {
				t.Fatalf("%s: partition %d has no keys", c.Name, p)
			}
			if got := hasher.Partition(&kgo.Record{Key: keys[0]}, int(c.Partitions)); got != int(p) {
				t.Errorf("%s: key %s is of partition %d, not %d", c.Name, keys[0], got, p)
			}
		}
	}
}
