package group

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// An open transaction on an output partition holds back everyone who reads
// committed records there, and its offset commit holds back whoever takes
// over the source partition, until it ends or times out. When its owner is
// dead nobody will end it but the broker, 10 s and a sweep later. Asking for
// the producer id in its name ends it at once.

// Fence ends the transaction that is open under a transactional id, ours or that of a dead
// instance, by taking the id.
func Fence(ctx context.Context, cl *kgo.Client, transactionalID string, timeout time.Duration) error {
	return FenceReporting(ctx, cl, transactionalID, timeout, func(error) {})
}

// FenceReporting does the same, and calls heard with what brokers answer while it takes long.
func FenceReporting(ctx context.Context, cl *kgo.Client, transactionalID string, timeout time.Duration, heard func(error)) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &transactionalID
	req.TransactionTimeoutMillis = int32(timeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	for pause := (fault.Backoff{First: 10 * time.Millisecond, Longest: 500 * time.Millisecond}); ; {
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		// The coordinator ends the old transaction first and has the
		// question asked again meanwhile.
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		heard(err)
		if err := pause.Wait(ctx); err != nil {
			return err
		}
	}
}

// FencePatience is how long brokers may take over it: the loop waits.
const FencePatience = 5 * time.Second

// fenceDead ends the transactions that are open on the outputs of newly
// assigned partitions and whose instance is no longer a member. It does what
// it can: a transaction that it cannot end ends by its timeout.
func (a *Admin) fenceDead(ctx context.Context, added map[string][]int32) {
	ctx, cancel := context.WithTimeout(ctx, FencePatience)
	defer cancel()
	ids, err := a.DeadTransactions(ctx, added)
	if err != nil {
		a.Reporter.Warn("cannot look for transactions that dead instances left open; they end by their timeout", err)
	}
	for _, id := range ids {
		if err := Fence(ctx, a.Client, id, a.Config.TransactionTimeout); err != nil {
			a.Reporter.Warn("cannot end the transaction of a dead instance; it ends by its timeout", err, "transactional_id", id)
			continue
		}
		a.Reporter.Logger.Info("ended a transaction that a dead instance had left open", "transactional_id", id)
	}
}

func (a *Admin) DeadTransactions(ctx context.Context, added map[string][]int32) ([]string, error) {
	producers, failed := a.openProducers(ctx, added)
	if len(producers) == 0 {
		return nil, failed
	}
	members, err := a.members(ctx)
	if err != nil {
		return nil, err
	}
	open, err := a.Kadm.ListTransactions(ctx, producers, nil)
	if err != nil && len(open) == 0 {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	var dead []string
	for _, id := range open.TransactionalIDs() {
		instance, ours := a.instanceOf(id)
		switch {
		case !ours:
			// Not ours to end; if it stays open, OpenTransactions tells of it.
		case !slices.Contains(members, instance):
			dead = append(dead, id)
		}
	}
	return dead, cmp.Or(failed, err)
}

// instanceOf returns the instance of our group that has a transactional id, if one has.
func (a *Admin) instanceOf(transactionalID string) (instance string, ours bool) {
	group, instance, ok := config.SplitTransactionalID(transactionalID)
	return instance, ok && group == a.Config.Group
}

// openProducers returns the ids of the producers with a transaction open on
// the outputs of partitions.
func (a *Admin) openProducers(ctx context.Context, partitions map[string][]int32) ([]int64, error) {
	set := kadm.TopicsSet{}
	for topic, ps := range partitions {
		for _, n := range ps {
			if n < a.Topics[topic].Usable {
				set.Add(a.Topics[topic].Ordered, n)
				set.Add(a.Topics[topic].Late, n)
			}
		}
	}
	if len(set) == 0 {
		return nil, nil // to ask for none is to ask for all
	}
	described, failed := a.Kadm.DescribeProducers(ctx, set) // some answers are better than none
	if failed != nil {
		failed = fmt.Errorf("describe the producers of the outputs: %w", failed)
	}
	var open []int64
	described.EachPartition(func(p kadm.DescribedProducersPartition) {
		if p.Err != nil {
			failed = fmt.Errorf("describe the producers of %s partition %d: %w", p.Topic, p.Partition, p.Err)
		}
	})
	described.EachProducer(func(p kadm.DescribedProducer) {
		if p.CurrentTxnStartOffset >= 0 && !slices.Contains(open, p.ProducerID) {
			open = append(open, p.ProducerID)
		}
	})
	return open, failed
}

// members returns the instances that are in the group.
func (a *Admin) members(ctx context.Context) ([]string, error) {
	groups, err := a.Kadm.DescribeGroups(ctx, a.Config.Group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("describe group %q: %w", a.Config.Group, err)
	}
	var ids []string
	for _, m := range groups[a.Config.Group].Members {
		if m.InstanceID != nil {
			ids = append(ids, *m.InstanceID)
		}
	}
	return ids, nil
}

// A transaction that put nothing out, because all that was read is held, has no
// partition of an output in it, only offsets of the group. Nothing shows it but the
// answer to whoever asks for these offsets, UNSTABLE_OFFSET_COMMIT. Then all
// transactions that are open are listed.

// listHoldersEvery is how often they are, while the answer stays the same. All brokers
// are asked.
const listHoldersEvery = 2 * time.Second

// holders is what is known of the transactions that hold offsets of a group.
type holders struct {
	listed time.Time // last
	ids    []string  // those that may be it, the most likely first
}

// heldBack is called when offsets of a group were found unstable. From time to time it
// looks for the transactions that hold them, and ends those of dead instances of ours.
func (a *Admin) heldBack(ctx context.Context, group string, h *holders, unstable error) {
	if time.Since(h.listed) >= listHoldersEvery {
		h.listed = time.Now()
		ended, err := a.endHolders(ctx, group, h)
		if ended {
			return
		}
		if err != nil && ctx.Err() == nil {
			a.Reporter.Warn("cannot look for the transaction that holds offsets of the group; it ends by its timeout at the latest", err, "group", group)
		}
	}
	args := []any{"group", group}
	if len(h.ids) > 0 {
		const most = 3
		args = append(args, "transactional_id", strings.Join(h.ids[:min(len(h.ids), most)], ","))
	}
	a.Reporter.Info("waiting for the end of a transaction that holds offsets of the group", unstable, args...)
}

// endHolders lists what may hold offsets of a group. What instances of our group left
// open that are no members of it any more, it ends.
func (a *Admin) endHolders(ctx context.Context, group string, h *holders) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, FencePatience)
	defer cancel()
	// Members first: who joins and begins a transaction afterwards is not taken
	// for dead.
	members, err := a.members(ctx)
	if err != nil {
		return false, err
	}
	open, err := a.Kadm.ListTransactions(ctx, nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"})
	if err != nil && len(open) == 0 {
		if a.cannotList(ctx) {
			return false, nil
		}
		return false, fmt.Errorf("list transactions: %w", err)
	}
	var stuck, others, live []string
	for _, tx := range open.Sorted() {
		instance, ours := a.instanceOf(tx.TxnID)
		switch {
		case !ours || group != a.Config.Group:
			others = append(others, tx.TxnID)
			continue
		case instance == a.Config.Instance, slices.Contains(members, instance), tx.State != "Ongoing":
			live = append(live, tx.TxnID)
			continue
		}
		if failed := Fence(ctx, a.Client, tx.TxnID, a.Config.TransactionTimeout); failed != nil {
			stuck = append(stuck, tx.TxnID)
			a.Reporter.Warn("cannot end the transaction of a dead instance; it ends by its timeout", failed, "transactional_id", tx.TxnID)
			continue
		}
		ended = true
		a.Reporter.Logger.Info("ended a transaction that a dead instance had left open", "transactional_id", tx.TxnID)
	}
	h.ids = slices.Concat(stuck, a.withOffsetsOf(ctx, group, others), live)
	return ended, err
}

// cannotList tells, once, of brokers that do not list transactions.
func (a *Admin) cannotList(ctx context.Context) bool {
	versions, err := a.Kadm.ApiVersions(ctx)
	if err != nil || len(versions) == 0 {
		return false
	}
	for _, v := range versions {
		if _, ok := v.KeyMaxVersion(int16(kmsg.ListTransactions)); ok || v.Err != nil {
			return false
		}
	}
	a.Reporter.WarnOnce("", "brokers before Kafka 3.0 do not list transactions: those that dead instances left open end by their timeout", "group", a.Config.Group)
	return true
}

// withOffsetsOf returns those of other programs' transactions that may hold offsets of
// a group: they have in them the partition on which the brokers keep its offsets. It
// does what it can; whose transactions we may not see are not among those listed.
func (a *Admin) withOffsetsOf(ctx context.Context, group string, ids []string) (may []string) {
	const topic = "__consumer_offsets"
	if len(ids) == 0 {
		return nil
	}
	described, _ := a.Kadm.DescribeTransactions(ctx, ids...)
	listed, err := a.Kadm.ListTopicsWithInternal(ctx, topic)
	n := len(listed[topic].Partitions)
	for _, tx := range described.Sorted() {
		partitions, ok := tx.Topics[topic]
		if _, precise := partitions[offsetsPartition(group, int32(max(n, 1)))]; ok && (precise || err != nil || n == 0) {
			may = append(may, tx.TxnID)
		}
	}
	return may
}

// offsetsPartition is on which of n partitions brokers keep the offsets of a group:
// the absolute value of Java's hash of its name.
func offsetsPartition(group string, n int32) int32 {
	var hash int32
	for _, unit := range utf16.Encode([]rune(group)) {
		hash = 31*hash + int32(unit)
	}
	if hash == math.MinInt32 {
		return 0
	}
	return max(hash, -hash) % n
}
