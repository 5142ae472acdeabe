package verify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
)

// Readers of committed records see nothing behind the first record of an open transaction,
// whoever opened it. What came out with a commit may stand there, and is hidden then, not
// lost. It is hidden in the outputs' order: .ordered rises by (epoch, event time, source
// offset) and .late by source offset. So what stands before the last record in sight is
// owed all the same, and lost if it is not there.

// Hidden is what stands behind an open transaction in an output partition: the offsets
// [From, To) of which readers see nothing.
type Hidden struct {
	Topic        string        `json:"topic"`
	Partition    int32         `json:"partition"`
	From         int64         `json:"from"`
	To           int64         `json:"to"`
	Transactions []Transaction `json:"transactions"` // that are open there, the first first; empty if brokers do not tell
}

// Transaction is an open one.
type Transaction struct {
	ID         string    `json:"transactional_id"` // empty: not known
	ProducerID int64     `json:"producer_id"`
	From       int64     `json:"from"` // its first offset in the partition
	Last       time.Time `json:"last"` // when it wrote there last
}

func (t Transaction) String() string {
	who := fmt.Sprintf("producer id %d", t.ProducerID)
	if t.ID != "" {
		who = fmt.Sprintf("transactional id %q", t.ID)
	}
	return fmt.Sprintf("%s, from offset %d, last written at %s", who, t.From, t.Last.UTC().Format(time.RFC3339))
}

// hidden returns what a commit that was read before may have put out where readers do not
// see it: written is where the output ended, seen what there is to read.
func (v *verification) hidden(ctx context.Context, written kadm.ListedOffsets, seen []scan.Stretch) map[int32]*Hidden {
	all := map[int32]*Hidden{}
	about := kadm.TopicsSet{}
	for _, s := range seen {
		if end, ok := written.Lookup(s.Topic, s.Partition); ok && end.Offset > s.End {
			all[s.Partition] = &Hidden{Topic: s.Topic, Partition: s.Partition, From: s.End, To: end.Offset}
			about.Add(s.Topic, s.Partition)
		}
	}
	if len(all) == 0 {
		return nil
	}
	// Old brokers do not tell, and those of now need not let us ask.
	described, _ := v.adm.DescribeProducers(ctx, about)
	var ids []int64
	for _, p := range described.SortedProducers() {
		h := all[p.Partition]
		if h == nil || p.Topic != h.Topic || p.CurrentTxnStartOffset < 0 {
			continue
		}
		h.Transactions = append(h.Transactions, Transaction{ProducerID: p.ProducerID, From: p.CurrentTxnStartOffset, Last: time.UnixMilli(p.LastTimestamp)})
		ids = append(ids, p.ProducerID)
	}
	names := map[int64]string{}
	if len(ids) > 0 {
		listed, _ := v.adm.ListTransactions(ctx, ids, nil)
		for _, t := range listed {
			names[t.ProducerID] = t.TxnID
		}
	}
	for _, h := range all {
		for i := range h.Transactions {
			h.Transactions[i].ID = names[h.Transactions[i].ProducerID]
		}
		slices.SortFunc(h.Transactions, func(a, b Transaction) int { return int(a.From - b.From) })
	}
	return all
}

// mayBeHidden reports whether the output of a source record that has none in sight may
// stand behind an open transaction.
func (c *Checker) mayBeHidden(offset int64, p pending) bool {
	s := &c.scope
	if s.LateHidden && (!c.late.seen || c.late.epoch < s.Epoch || offset >= c.late.source || c.rules.Identity.Kind != emit.NoIdentity) {
		return true
	}
	if !s.OrderedHidden || p.timing == timeInvalid {
		return false
	}
	last := c.ordered.last
	return p.timing != timeUsable || last.epoch < s.Epoch || last.Before(p.at(offset))
}

// noteHidden takes note of an epoch that is not in sight at all: then outputs of the one
// before may have been taken for its own.
func (c *Checker) noteHidden() {
	if s := &c.scope; s.OrderedHidden && s.Epoch > 0 && c.ordered.last.epoch < s.Epoch && c.report.Unjudged[GapHidden] == 0 {
		c.report.Unjudged[GapHidden] = c.report.Read
	}
}
