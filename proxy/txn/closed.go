package txn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// closed is an output partition that accepts no records.
type closed struct {
	topic   string
	err     error
	visible bool // the brokers say that it has no leader, or too few replicas
}

// Patience is how many times in a row everything goes back to the commit because an output
// partition refuses records.
const Patience = 5

// tryAgainOrClose closes the source partitions whose output partitions accept no records.
// If every partition that has written is refused, the cause may be the cluster or our
// producer: closing them all would help none, and all would wait for the next try.
func (w *Writer) tryAgainOrClose(ctx context.Context, all []*failure) error {
	var about []*Source
	errs, topics := map[*Source]error{}, map[*Source]string{}
	apart := w.someAccepted(all)
	for _, f := range all {
		s := w.writerOf(f)
		if s == nil || fault.IsFenced(f.err) {
			continue
		}
		s.tries = tries{n: s.tries.n + 1, low: s.Low}
		switch {
		case apart && AboutPartition(f.err):
			about, errs[s], topics[s] = append(about, s), f.err, f.topic
		case s.tries.n > Patience:
			// the client itself may be broken
			return fmt.Errorf("write to %s partition %d: refused %d times: %w", f.topic, f.partition, s.tries.n, f.err)
		}
	}
	if len(about) == 0 {
		return nil
	}
	why, err := w.unwritable(ctx, about)
	for _, s := range about {
		often := s.tries.n > Patience
		switch {
		case why[s.Source] != nil:
			s.closed = &closed{topic: topics[s], err: fmt.Errorf("%w: %w", why[s.Source], errs[s]), visible: true}
		case often && err != nil:
			return fmt.Errorf("write to the outputs of %s partition %d: refused %d times: %w", s.Topic, s.Partition, Patience+1, errs[s])
		case often:
			s.closed = &closed{topic: topics[s], err: errs[s]}
		}
	}
	return nil
}

// someAccepted reports whether a partition has written something and was not refused.
func (w *Writer) someAccepted(all []*failure) bool {
	refused := map[*Source]bool{}
	for _, f := range all {
		refused[w.writerOf(f)] = true
	}
	for _, s := range w.sources {
		if s.written > 0 && !refused[s] {
			return true
		}
	}
	return false
}

// errUnwritable says that brokers know why an output partition accepts no records.
var errUnwritable = errors.New("no records can be written now")

// unwritable returns the source partitions that have an output partition which accepts no
// records, with the reason that brokers give. It writes nothing to find out: a partition to
// which even one record was sent belongs to the transaction, which then cannot end before
// the partition is back.
func (w *Writer) unwritable(ctx context.Context, sources []*Source) (map[emit.Source]error, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // the loop waits
	defer cancel()
	var topics []string
	seen := map[string]bool{}
	for _, s := range sources {
		for _, topic := range []string{s.Ordered, s.Late} {
			if !seen[topic] {
				seen[topic] = true
				topics = append(topics, topic)
			}
		}
	}
	listed, err := w.Admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, err
	}
	least := w.minInSync(ctx, topics)
	why := map[emit.Source]error{}
	for _, s := range sources {
		for _, topic := range []string{s.Ordered, s.Late} {
			d, ok := listed[topic].Partitions[s.Partition]
			switch {
			case !ok:
			case d.Leader < 0 || errors.Is(d.Err, kerr.LeaderNotAvailable):
				why[s.Source] = fmt.Errorf("%s partition %d has no leader: %w", topic, s.Partition, errUnwritable)
			case len(d.ISR) < least[topic]:
				why[s.Source] = fmt.Errorf("%s partition %d has %d replicas in sync, and min.insync.replicas is %d: %w", topic, s.Partition, len(d.ISR), least[topic], errUnwritable)
			}
		}
	}
	return why, nil
}

// minInSync returns min.insync.replicas of topics, as far as we are allowed to read it.
func (w *Writer) minInSync(ctx context.Context, topics []string) map[string]int {
	least := map[string]int{}
	configs, err := w.Admin.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return least
	}
	for _, c := range configs {
		for _, kv := range c.Configs {
			if kv.Key == "min.insync.replicas" && kv.Value != nil {
				least[c.Name], _ = strconv.Atoi(*kv.Value)
			}
		}
	}
	return least
}

// Closed reports whether an output of a source partition accepts no records, so that the
// partition has to be suspended. visible: the brokers say why.
func (s *Source) Closed() (visible, isClosed bool) {
	if s.closed == nil {
		return false, false
	}
	return s.closed.visible, true
}

// HaltClosed returns why a partition is suspended whose output accepts no records.
func (w *Writer) HaltClosed(s *Source) Halt {
	return Halt{
		Why:  fmt.Errorf("write to %s partition %d: %w", s.closed.topic, s.Partition, s.closed.err),
		Hint: "check that the partition has a leader and enough replicas in sync: " + fault.CommandsFor(w.Config).Line("kafka-topics", "--describe", "--topic", s.closed.topic),
	}
}

// ForgetTries resets the count of refusals: the partition is suspended now.
func (s *Source) ForgetTries() { s.tries = tries{} }

// Reopen asks the brokers which outputs that accepted no records can be written to again.
// Those are tried with their next record alone. why says what the others still wait for.
func (w *Writer) Reopen(ctx context.Context, sources []*Source) (open []*Source, why map[*Source]error) {
	if len(sources) == 0 {
		return nil, nil
	}
	known, err := w.unwritable(ctx, sources)
	why = map[*Source]error{}
	for _, s := range sources {
		still := known[s.Source]
		if still == nil {
			still = err
		}
		if still != nil {
			s.closed = &closed{topic: s.closed.topic, err: still, visible: true}
			why[s] = still
			continue
		}
		s.suspect = &suspect{left: 1, alone: true, closed: s.closed}
		s.closed = nil
		open = append(open, s)
	}
	return open, why
}
