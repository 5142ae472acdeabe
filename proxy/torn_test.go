package proxy

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/group"
)

// Kafka itself may tear a transaction: commit it in some partitions and abort it in
// others (docs/design/torn-transactions.md). What it held is then lost, or comes
// again, whatever the client does. Here such transactions are found in the logs, so
// that chaos can tell them from a fault of ours.

// transaction is named by its producer and its epoch: since Kafka 4.0 each has an
// epoch of its own.
type transaction struct {
	producer int64
	epoch    int16
}

// ending is how a transaction ended in one partition.
type ending struct {
	group.TopicPartition
	committed bool
	sources   []int64 // the source offsets of its records, as far as they state one
}

func (e ending) String() string {
	result := "aborted"
	if e.committed {
		result = "committed"
	}
	return fmt.Sprintf("%s in %s/%d", result, e.Topic, e.N)
}

// fates collects how transactions ended.
type fates struct {
	open  map[group.TopicPartition]map[transaction][]int64
	ended map[transaction][]ending
	reuse bool // an epoch had two transactions in one partition: they cannot be told apart
}

func newFates() *fates {
	return &fates{map[group.TopicPartition]map[transaction][]int64{}, map[transaction][]ending{}, false}
}

// add is given all records of a partition in their order, markers among them.
func (e *fates) add(r *kgo.Record) {
	if !r.Attrs.IsTransactional() {
		return
	}
	where := group.TopicPartition{Topic: r.Topic, N: r.Partition}
	open := e.open[where]
	if open == nil {
		open = map[transaction][]int64{}
		e.open[where] = open
	}
	if !r.Attrs.IsControl() {
		of := transaction{r.ProducerID, r.ProducerEpoch}
		sources := open[of]
		for _, h := range r.Headers {
			if n, err := strconv.ParseInt(string(h.Value), 10, 64); err == nil && strings.HasSuffix(h.Key, "source-offset") {
				sources = append(sources, n)
			}
		}
		open[of] = sources
		return
	}
	if len(r.Key) < 4 {
		return
	}
	// The key of a marker: its version, and 0 to abort or 1 to commit.
	committed := binary.BigEndian.Uint16(r.Key[2:]) == 1
	for of, sources := range open {
		if of.producer != r.ProducerID {
			continue
		}
		e.reuse = e.reuse || slices.ContainsFunc(e.ended[of], func(o ending) bool { return o.TopicPartition == where })
		e.ended[of] = append(e.ended[of], ending{where, committed, sources})
		delete(open, of)
	}
}

// torn returns the transactions that ended in both ways.
func (e *fates) torn() map[transaction][]ending {
	torn := map[transaction][]ending{}
	if e.reuse {
		return torn
	}
	for of, all := range e.ended {
		if slices.ContainsFunc(all, func(o ending) bool { return o.committed != all[0].committed }) {
			torn[of] = all
		}
	}
	return torn
}

func (t transaction) String() string { return fmt.Sprintf("producer %d epoch %d", t.producer, t.epoch) }

// described says what became of torn transactions, one a line.
func described(torn map[transaction][]ending) []string {
	var lines []string
	byAge := func(a, b transaction) int {
		return cmp.Or(cmp.Compare(a.producer, b.producer), cmp.Compare(a.epoch, b.epoch))
	}
	for _, of := range slices.SortedFunc(maps.Keys(torn), byAge) {
		lines = append(lines, fmt.Sprintf("the brokers have torn the transaction of %v: %v", of, torn[of]))
	}
	return lines
}

// torn reads the logs of the outputs and of the group's offsets.
func (c *cluster) torn(topics ...string) map[transaction][]ending {
	c.t.Helper()
	e := newFates()
	for _, topic := range topics {
		c.each(topic, kgo.ReadUncommitted(), e.add)
	}
	if e.reuse {
		c.t.Log("these brokers use an epoch for many transactions: torn ones cannot be found")
	}
	return e.torn()
}

// holdsButForTorn is holds, where brokers may tear transactions: exactly the records
// that these held in partitions where they were aborted may be lost.
func (c *cluster) holdsButForTorn(cfg config.Config, w *workload) (r verify.Report, verdict string) {
	c.t.Helper()
	source := cfg.Topics[0]
	torn := c.torn(cfg.OrderedTopic(source), cfg.LateTopic(source), "__consumer_offsets")
	if len(torn) == 0 {
		r = c.holds(cfg, w)
		if !r.Holds() {
			return r, "DOES NOT HOLD"
		}
		return r, "holds"
	}
	report(c.t, strings.Join(described(torn), "\n"))
	r = c.finds(cfg)
	out := map[int32]map[int64]bool{}
	for _, topic := range []string{cfg.OrderedTopic(source), cfg.LateTopic(source)} {
		for p, records := range c.contents(topic) {
			if out[int32(p)] == nil {
				out[int32(p)] = map[int64]bool{}
			}
			for _, rec := range records {
				if offset, err := strconv.ParseInt(header(rec, cfg.HeaderPrefix+"source-offset"), 10, 64); err == nil {
					out[int32(p)][offset] = true
				}
			}
		}
	}
	lost := map[group.TopicPartition]map[int64]bool{}
	var total int64
	for _, all := range torn {
		for _, e := range all {
			if e.committed {
				continue
			}
			where := group.TopicPartition{Topic: source, N: e.N}
			if lost[where] == nil {
				lost[where] = map[int64]bool{}
			}
			for _, offset := range e.sources {
				if !out[e.N][offset] && !lost[where][offset] {
					lost[where][offset] = true
					total++
				}
			}
		}
	}
	f := r.Faults[verify.KindLost]
	ok := f.Total == total && r.Read == int64(w.records)
	for _, one := range f.First {
		ok = ok && lost[group.TopicPartition{Topic: one.Topic, N: one.Partition}][one.SourceOffset]
	}
	for kind, f := range r.Faults {
		if kind != verify.KindLost || !ok {
			c.t.Errorf("%d %s: %+v", f.Total, kind, f.First)
		}
	}
	var late int64
	for _, n := range r.Late {
		late += n
	}
	if put := r.Ordered + late + r.Buffered - r.Repeated + total; put != r.Read {
		c.t.Errorf("%d read, and %d put out, held or torn by brokers", r.Read, put)
	}
	if c.t.Failed() {
		return r, "DOES NOT HOLD"
	}
	return r, fmt.Sprintf("holds, but for %d records of transactions that the brokers have torn", total)
}

// TestTornIsFound: a transaction that ends in both ways, and no other.
func TestTornIsFound(t *testing.T) {
	type entry struct {
		partition int32
		of        transaction
		marker    int // 0: a record, 1: a commit, 2: an abort
	}
	const commit, abort = 1, 2
	a, b, other := transaction{1, 7}, transaction{1, 8}, transaction{2, 7}
	for name, test := range map[string]struct {
		log   []entry
		torn  []transaction
		lost  []int64
		reuse bool
	}{
		"committed": {log: []entry{{0, a, 0}, {1, a, 0}, {0, a, commit}, {1, a, commit}}},
		"aborted":   {log: []entry{{0, a, 0}, {1, a, 0}, {0, a, abort}, {1, a, abort}}},
		"open":      {log: []entry{{0, a, 0}, {1, a, 0}, {0, a, commit}}},
		"torn": {
			log:  []entry{{0, a, 0}, {1, a, 0}, {0, a, commit}, {1, b, abort}},
			torn: []transaction{a}, lost: []int64{1},
		},
		"ended with the next": {
			log: []entry{
				{0, a, 0}, {1, a, 0}, {0, a, commit}, {1, b, 0}, {0, b, 0}, {0, b, abort}, {1, b, abort},
			},
			torn: []transaction{a}, lost: []int64{1},
		},
		"of two producers":  {log: []entry{{0, a, 0}, {1, other, 0}, {0, a, commit}, {1, other, abort}}},
		"an epoch for many": {log: []entry{{0, a, 0}, {0, a, commit}, {0, a, 0}, {0, a, abort}}, reuse: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFates()
			for n, in := range test.log {
				r := &kgo.Record{
					Topic: "out", Partition: in.partition, ProducerID: in.of.producer, ProducerEpoch: in.of.epoch,
					Headers: []kgo.RecordHeader{{Key: "tidemark-source-offset", Value: []byte(strconv.Itoa(n))}},
					Attrs:   kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Transactional: true, Control: in.marker > 0}),
				}
				if in.marker > 0 {
					r.Headers, r.Key = nil, []byte{0, 0, 0, byte(in.marker % 2)}
				}
				e.add(r)
			}
			torn := e.torn()
			var lost []int64
			for _, all := range torn {
				for _, one := range all {
					if !one.committed {
						lost = append(lost, one.sources...)
					}
				}
			}
			if got := slices.Collect(maps.Keys(torn)); !slices.Equal(got, test.torn) || !slices.Equal(lost, test.lost) || e.reuse != test.reuse {
				t.Errorf("torn are %v, with the records %v; epochs are used again: %t", got, lost, e.reuse)
			}
		})
	}
}

// TestKafkaTornTransaction has a broker tear a transaction: the coordinator dies with
// the decision to commit in its own log only, and comes back before the cluster has
// noticed. It reads the decision, though it is not committed, and marks the partitions
// of other leaders; then the next leader of the transaction log takes over, which never
// had it, and the rest is aborted. That is said and no fault of this test, which checks
// that c.torn sees it. A coordinator that comes back later tears nothing.
func TestKafkaTornTransaction(t *testing.T) {
	if os.Getenv(clusterVar) == "" {
		t.Skip(clusterVar + " is not set: brokers have to be killed")
	}
	for name, early := range map[string]bool{"at once": true, "once another leads": false} {
		t.Run(name, func(t *testing.T) {
			onReal(t, os.Getenv(brokersVar), func(t *testing.T, c *cluster) {
				b := c.brokers()
				if b.n != 3 {
					t.Skip("needs three brokers")
				}
				const partitions = 12
				topic := c.topic(partitions)
				id := "torn-" + topic
				options := []kgo.Opt{
					kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(id), kgo.TransactionTimeout(20 * time.Second),
				}
				cl := c.client(options...)
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				for p := range int32(partitions) {
					c.produce(cl, &kgo.Record{Topic: topic, Partition: p, Value: []byte("one transaction")})
				}
				dies := c.coordinator(id, false)
				others := func(command string) {
					for i := 1; i <= b.n; i++ {
						if i != dies {
							b.do(command, i)
						}
					}
				}
				others("pause")
				time.Sleep(time.Second) // what they have asked for is answered by then
				ctx, cancel := context.WithTimeout(c.ctx, time.Second)
				err := cl.EndTransaction(ctx, kgo.TryCommit)
				cancel()
				t.Logf("broker %d coordinates, by itself; the end of the transaction: %v", dies, err)
				b.do("kill", dies)
				others("resume")
				if !early {
					c.awaitFor(time.Minute, "another coordinator", func() bool {
						leads := c.coordinator(id, false)
						return leads != 0 && leads != dies
					})
				}
				b.do("restart", dies)
				cl.Close()

				next := c.client(options...)
				defer next.Close()
				c.awaitFor(time.Minute, "the end of the transaction", func() bool {
					ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
					defer cancel()
					_, _, err := next.ProducerID(ctx)
					return err == nil && c.settled(topic)
				})
				torn := c.torn(topic)
				visible := 0
				for _, records := range c.contents(topic) {
					visible += len(records)
				}
				for _, line := range described(torn) {
					t.Log(line)
				}
				t.Logf("%d of %d records are committed", visible, partitions)
				if (visible%partitions != 0) != (len(torn) == 1) || len(torn) > 0 && !early {
					t.Errorf("%d records are committed, and torn are %v", visible, torn)
				}
			})
		})
	}
}
