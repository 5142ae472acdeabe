package group

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TestWroteBetweenLooks: what brokers say of a producer before and after, as Kafka 4.1 does,
// with transactions of both versions.
func TestWroteBetweenLooks(t *testing.T) {
	at := trace{"out", 0, 7}
	producer := func(epoch int16, sequence int32, timestamp int64, coordinator int32, start int64) kadm.DescribedProducer {
		return kadm.DescribedProducer{
			Topic: at.topic, Partition: at.partition, ProducerID: at.producer,
			ProducerEpoch: epoch, LastSequence: sequence, LastTimestamp: timestamp, CoordinatorEpoch: coordinator, CurrentTxnStartOffset: start,
		}
	}
	moved := producer(3, 9, 1000, 0, 100)
	moved.Leader = 2
	for name, c := range map[string]struct {
		was, is kadm.DescribedProducer
		wrote   bool
	}{
		"nothing":                                {producer(3, 9, 1000, 0, 100), producer(3, 9, 1000, 0, 100), false},
		"the leader moved":                       {producer(3, 9, 1000, 0, 100), moved, false},
		"its transaction has ended, version 1":   {producer(3, 9, 1000, 0, 100), producer(3, 9, 1200, 0, -1), false},
		"its transaction has ended, version 2":   {producer(3, 9, 1000, 0, 100), producer(4, -1, 1200, 0, -1), false},
		"into the same transaction":              {producer(3, 9, 1000, 0, 100), producer(3, 12, 1100, 0, 100), true},
		"into the next one":                      {producer(3, 9, 1000, 0, 100), producer(4, 0, 1300, 0, 140), true},
		"a whole transaction, version 1":         {producer(3, 9, 1000, 0, -1), producer(3, 11, 1300, 0, -1), true},
		"a whole transaction, version 2":         {producer(3, -1, 1000, 0, -1), producer(4, -1, 1300, 0, -1), true},
		"a transaction has begun":                {producer(3, -1, 1000, 0, -1), producer(4, 0, 1300, 0, 120), true},
		"without transactions":                   {producer(0, 9, 1000, -1, -1), producer(0, 10, 1000, -1, -1), true},
		"without transactions, and nothing came": {producer(0, 9, 1000, -1, -1), producer(0, 9, 1000, -1, -1), false},
	} {
		if got := at.wrote(traces{at: c.was}, traces{at: c.is}); got != c.wrote {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !at.wrote(traces{}, traces{at: producer(0, 0, 1000, -1, -1)}) {
		t.Error("who was not there before has not written")
	}
}
