package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// An open transaction on an output partition holds back everyone who reads
// committed records there, and its offset commit holds back whoever takes
// over the source partition, until it ends or times out. When its owner is
// dead nobody will end it but the broker, 10 s and a sweep later. Asking for
// the producer id in its name ends it at once.

// fenceOwn ends the transaction that an earlier run of this instance may have
// left open. It comes before joining the group.
func fenceOwn(ctx context.Context, cl *kgo.Client, transactionalID string, timeout time.Duration) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &transactionalID
	req.TransactionTimeoutMillis = int32(timeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	for pause := (backoff{first: 10 * time.Millisecond, longest: 500 * time.Millisecond}); ; {
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		// The coordinator ends the old transaction first and has the
		// question asked again meanwhile.
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// fencePatience is how long brokers may take over it: the loop waits.
const fencePatience = 5 * time.Second

// fenceDead ends the transactions that are open on the outputs of newly
// assigned partitions and whose instance is no longer a member. It does what
// it can: a transaction that it cannot end ends by its timeout.
func (s *session) fenceDead(added map[string][]int32) {
	ctx, cancel := context.WithTimeout(s.stopping, fencePatience)
	defer cancel()
	ids, err := s.deadTransactions(ctx, added)
	if err != nil {
		s.alarm.raise("cannot look for transactions that dead instances left open; they end by their timeout", err)
	}
	for _, id := range ids {
		if err := fenceOwn(ctx, s.cl, id, s.cfg.TransactionTimeout); err != nil {
			s.alarm.raise("cannot end the transaction of a dead instance; it ends by its timeout", err, "transactional_id", id)
			continue
		}
		s.log.Info("ended the transaction that a dead instance left open", "transactional_id", id)
	}
}

func (s *session) deadTransactions(ctx context.Context, added map[string][]int32) ([]string, error) {
	producers, failed := s.openProducers(ctx, added)
	if len(producers) == 0 {
		return nil, failed
	}
	open, err := s.adm.ListTransactions(ctx, producers, nil)
	if err != nil {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	members, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	var dead []string
	for _, id := range open.TransactionalIDs() {
		group, instance, ok := config.SplitTransactionalID(id)
		switch {
		case !ok || group != s.cfg.Group:
			s.log.Warn("a stranger has a transaction open on an output; readers wait for it", "transactional_id", id)
		case !slices.Contains(members, instance):
			dead = append(dead, id)
		}
	}
	return dead, failed
}

// openProducers returns the ids of the producers with a transaction open on
// the outputs of partitions.
func (s *session) openProducers(ctx context.Context, partitions map[string][]int32) ([]int64, error) {
	set := kadm.TopicsSet{}
	for topic, ps := range partitions {
		for _, n := range ps {
			if n < s.topics[topic].Usable {
				set.Add(s.topics[topic].Ordered, n)
				set.Add(s.topics[topic].Late, n)
			}
		}
	}
	if len(set) == 0 {
		return nil, nil // to ask for none is to ask for all
	}
	described, failed := s.adm.DescribeProducers(ctx, set) // some answers are better than none
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
func (s *session) members(ctx context.Context) ([]string, error) {
	groups, err := s.adm.DescribeGroups(ctx, s.cfg.Group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("describe group %q: %w", s.cfg.Group, err)
	}
	var ids []string
	for _, m := range groups[s.cfg.Group].Members {
		if m.InstanceID != nil {
			ids = append(ids, *m.InstanceID)
		}
	}
	return ids, nil
}
