package main

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
)

// What the demo claims of its story is true of it, whatever the seed: in the
// order of event times nobody is declined, and within the bound that is the
// order in which the sidecar puts out what it does not find too late.
func TestStory(t *testing.T) {
	for seed := range uint64(20) {
		arrived := tellStory(seed)
		if !reflect.DeepEqual(arrived, tellStory(seed)) {
			t.Fatalf("seed %d tells two stories", seed)
		}
		happened := slices.SortedStableFunc(slices.Values(arrived), func(a, b storyEvent) int { return cmp.Compare(a.happened, b.happened) })
		if got := bill(happened); got.declined != 0 || got.events < 3000 || got.events > 10000 {
			t.Errorf("seed %d, as it happened: %+v", seed, got)
		}
		if got := bill(arrived); got.declined < 50 || got.stale < 200 {
			t.Errorf("seed %d, as it arrived: %+v", seed, got)
		}
		inTime := slices.DeleteFunc(happened, func(e storyEvent) bool { return e.clock != clockRight || e.arrives-e.happened > storyBound })
		if got := bill(inTime); got.declined != 0 || got.stale != 0 || got.events != len(arrived)-31 {
			t.Errorf("seed %d, as far as it is in time: %+v of %d", seed, got, len(arrived))
		}
	}
}

func bill(events []storyEvent) tally {
	b := newBilling()
	for _, e := range events {
		at := "not-a-time"
		if e.clock == clockRight {
			at = strconv.FormatInt((time.Hour + e.happened).Milliseconds(), 10)
		}
		b.book(e.payment, at, 0)
	}
	return b.sofar()
}
