package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// hopping is a family by its definition: every window there is that holds a
// time. With slide = size it is a tumbling one.
type hopping struct{ size, slide int64 }

func (h hopping) of(ms int64) (in []window) {
	for start := (ms - h.size - h.slide) / h.slide * h.slide; start <= ms; start += h.slide {
		if ms < start+h.size {
			in = append(in, window{start, start + h.size})
		}
	}
	return in
}

// stream draws what a partition of an ordered topic may look like: event times
// that rise, in epochs, each record with a watermark that is true and looks as
// far ahead as it likes.
func stream(t *rapid.T, h hopping) (log []*kgo.Record) {
	for epoch := range rapid.IntRange(1, 3).Draw(t, "epochs") {
		ms := rapid.Int64Range(-50, 50).Draw(t, "begin")
		for range rapid.IntRange(1, 40).Draw(t, "records") {
			next := ms + rapid.SampledFrom([]int64{0, 0, 1, 3, 9, 40}).Draw(t, "step")
			r := &kgo.Record{Offset: int64(2 * len(log)), Key: []byte{'a' + byte(ms&1)}, Value: strconv.AppendInt(nil, int64(len(log)+1), 10)}
			add := func(name string, value any) {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(fmt.Sprint(value))})
			}
			add("at", ms)
			if rapid.IntRange(0, 9).Draw(t, "no room") > 0 {
				add("tidemark-watermark", rapid.Int64Range(ms-1, max(ms-1, next-1)).Draw(t, "watermark"))
			}
			if epoch > 0 {
				add("tidemark-epoch", epoch)
			}
			log = append(log, r)
			ms = next
		}
	}
	return log
}

// rows are what was written, by key, in the order of writing.
type rows map[string][]int64

func (rs rows) write(key string, sum int64) { rs[key] = append(rs[key], sum) }

// replay reads a log with a program that dies every now and then: behind a
// commit, or with more written than the last one says.
func replay(t *rapid.T, h hopping, log []*kgo.Record) rows {
	written := rows{}
	offset, metadata := int64(0), ""
	p := restart(7, metadata)
	for at := 0; at < len(log); at++ {
		r := log[at]
		ms := number(r, "at", 0)
		if err := p.take(r, h.of(ms), written.write); err != nil {
			t.Fatal(err)
		}
		switch what := rapid.IntRange(0, 20).Draw(t, "event"); {
		case what < 6:
			offset, metadata = p.commit()
		case what == 20:
			p = restart(7, metadata)
			at = slices.IndexFunc(log, func(r *kgo.Record) bool { return r.Offset >= offset }) - 1
			if offset > log[len(log)-1].Offset {
				at = len(log) - 1
			}
		}
	}
	return written
}

// TestRestarts: wherever it dies, every window is written whole, and the same
// again if it is written again. What is written in the end are the windows that
// the last watermark, or a new epoch, has closed.
func TestRestarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slide := rapid.Int64Range(1, 20).Draw(t, "slide")
		h := hopping{slide * rapid.Int64Range(1, 4).Draw(t, "times"), slide}
		if rapid.Bool().Draw(t, "no multiple") {
			h.size += slide / 2
		}
		log := stream(t, h)
		want := map[string]int64{}
		last := number(log[len(log)-1], "tidemark-epoch", 0)
		watermark := int64(-1 << 40)
		for _, r := range log {
			if number(r, "tidemark-epoch", 0) == last {
				watermark = max(watermark, number(r, "tidemark-watermark", watermark))
			}
		}
		for _, r := range log {
			epoch := number(r, "tidemark-epoch", 0)
			for _, w := range h.of(number(r, "at", 0)) {
				if epoch < last || w.end-1 <= watermark {
					want[row(7, epoch, w, "-", string(r.Key))] += valueOf(r)
				}
			}
		}
		got := map[string]int64{}
		for key, sums := range replay(t, h, log) {
			got[key] = sums[0]
			for _, sum := range sums {
				if sum != sums[0] {
					t.Fatalf("%+v: %q was written as %v", h, key, sums)
				}
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%+v: written\n%v\nwant\n%v", h, got, want)
		}
	})
}

func valueOf(r *kgo.Record) int64 {
	n, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// A record that is in no window is not passed over.
func TestNoWindow(t *testing.T) {
	r := &kgo.Record{Topic: "t.ordered", Partition: 2, Offset: 5}
	if _, err := windows(r, "tumbling:1m"); err == nil || !strings.Contains(err.Error(), "t.ordered partition 2 offset 5") {
		t.Error(err)
	}
	r.Headers = []kgo.RecordHeader{
		{Key: "tidemark-window-tumbling:1m", Value: []byte("1,2")}, // somebody else's
		{Key: "tidemark-window-tumbling:1m", Value: []byte("-60000,0 0,60000")},
	}
	if in, err := windows(r, "tumbling:1m"); err != nil || !slices.Equal(in, []window{{-60000, 0}, {0, 60000}}) {
		t.Errorf("%v, %v", in, err)
	}
}

// TestDocs: what docs/windows.md shows is what runs.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../windows.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("windows.py")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(page), "```python\ndef take")
	shown, _, _ = strings.Cut("def take"+shown, "```")
	var method strings.Builder
	for line := range strings.Lines(shown) {
		method.WriteString("    " + line)
	}
	if !strings.Contains(string(program), method.String()) {
		t.Errorf("windows.py has no such method:\n%s", shown)
	}
}
