// Package workload makes the disordered streams that everything is measured
// on. A stream is a function of its case and seed: the same bytes, every time.
package workload

import (
	"fmt"
	"strings"
	"time"
)

// Case is a workload with a name and a reason to exist.
type Case struct {
	Name string
	Why  string

	Shape      string // how it is disordered: a key of shapes
	Size       int    // bytes of a value
	Partitions int32
	Codec      string // of the source's batches
	Records    int
	// Step is the event time from one record of a partition to the next. With
	// the bound it says how many are held.
	Step time.Duration
}

// Bound is the out-of-orderness that all candidates are told to wait for.
const Bound = 5 * time.Second

// Cases are not the product of shapes, sizes, partitions and codecs: each
// stands for something that can become slow by itself.
var Cases = []Case{
	{
		Name: "main", Why: "the usual: telemetry of 200 bytes, nearly in order, with stragglers and a few records too late",
		Shape: "mixed", Size: 200, Partitions: 4, Codec: "snappy", Records: 2_000_000, Step: 100 * time.Microsecond,
	},
	{
		Name: "sorted", Why: "within 20 ms of order: what it costs to wait where there is next to nothing to sort",
		Shape: "sorted", Size: 200, Partitions: 4, Codec: "lz4", Records: 2_000_000, Step: 100 * time.Microsecond,
	},
	{
		Name: "bursts", Why: "gateways that send what they have kept, thousands of records at a time",
		Shape: "bursts", Size: 2_000, Partitions: 4, Codec: "zstd", Records: 400_000, Step: 500 * time.Microsecond,
	},
	{
		Name: "slow", Why: "one producer of sixteen is four seconds behind: every release meets two fronts",
		Shape: "slow", Size: 200, Partitions: 64, Codec: "snappy", Records: 2_000_000, Step: time.Millisecond,
	},
	{
		Name: "mobile", Why: "phones that were offline for up to ten minutes: the late topic has work to do",
		Shape: "mobile", Size: 200, Partitions: 64, Codec: "none", Records: 2_000_000, Step: time.Millisecond,
	},
	{
		Name: "uniform", Why: "no order at all within the bound, small records, one partition: the queue and nothing else",
		Shape: "uniform", Size: 50, Partitions: 1, Codec: "snappy", Records: 2_000_000, Step: 25 * time.Microsecond,
	},
	{
		Name: "large", Why: "20 KB a record: bytes count, records do not",
		Shape: "mixed", Size: 20_000, Partitions: 4, Codec: "lz4", Records: 60_000, Step: 5 * time.Millisecond,
	},
	{
		Name: "wide", Why: "1000 partitions: what a partition costs, not a record",
		Shape: "mixed", Size: 200, Partitions: 1000, Codec: "snappy", Records: 2_000_000, Step: 10 * time.Millisecond,
	},
}

// Find returns the case of a name.
func Find(name string) (Case, error) {
	var names []string
	for _, c := range Cases {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return Case{}, fmt.Errorf("no case %q, there are %s", name, strings.Join(names, ", "))
}

// PerPartition is how many records each partition gets, without the last one,
// which only lets the others out.
func (c Case) PerPartition() int { return (c.Records + int(c.Partitions) - 1) / int(c.Partitions) }

// Total is how many records have to come out.
func (c Case) Total() int64 { return int64(c.PerPartition()) * int64(c.Partitions) }

// Held is how many records, and how many bytes of them (key, value, header),
// have to be held at a time.
func (c Case) Held() (records, bytes int64) {
	const key, header = len("device-000000"), len(EventTimeHeader) + len("1748736000000")
	records = min(int64(Bound/c.Step)*int64(c.Partitions), c.Total())
	return records, records * int64(c.Size+key+header)
}
