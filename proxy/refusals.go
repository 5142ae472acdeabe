package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// What becomes of records that brokers refuse; docs/design/refusals.md has the
// reasons. A refusal is about
//
//	size        the limits are learnt: see large.go
//	a record    refused for good (refusedForGood): the record is found, and its partition
//	            stands still before it
//	partition   an output partition that takes nothing for now (aboutPartition): it is
//	            tried again from the commit, and when that does not help, or the brokers
//	            say why, the source partition stands still
//	all else    the topic, our rights, the producer: see hopeless, and run.go
//
// A batch is refused as a whole, and the client does not pass on which record the
// brokers find fault with. So after the abort the records of a partition under
// suspicion go in groups, each of which is waited for, and what is refused of a group
// is sent again in ever smaller parts, within the same transaction:
//
//	group   a b c d e f g h    refused from c on (the batches behind a refused one fail with it)
//	                c d e      taken
//	                f g        refused
//	                f          refused alone: the one; g and h are not sent
//
// If the record is the first of its partition since the last commit, nothing of the
// partition is in the transaction: its state in memory is dropped, and whatever else
// is in the transaction stays. So it is each time the partition is tried again.
// Otherwise all goes back to the commit once more, and on coming to the record again,
// what precedes it is committed and the partition stands still.

// refusal is a record that was not acknowledged.
type refusal struct {
	topic     string
	partition int32
	size      int // of the record, in a batch of its own before compression
	err       error
}

// unacked are the refusals since the last commit, the first of each output partition.
// The client adds them, from goroutines of its own.
type unacked struct {
	some  atomic.Bool
	mu    sync.Mutex
	first []*refusal
}

func (u *unacked) any() bool { return u.some.Load() }

func (u *unacked) add(r *refusal) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, q := range u.first {
		if q.topic == r.topic && q.partition == r.partition {
			return
		}
	}
	u.first = append(u.first, r)
	u.some.Store(true)
}

// take returns them, and forgets them.
func (u *unacked) take() []*refusal {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.some.Store(false)
	taken := u.first
	u.first = nil
	return taken
}

// refusedForGood reports that brokers find fault with a record, and will each time.
func refusedForGood(err error) bool {
	return errors.Is(err, kerr.InvalidTimestamp) || errors.Is(err, kerr.InvalidRecord)
}

// aboutPartition reports that the output partition is to blame, as far as one can tell,
// and neither the record nor our producer.
func aboutPartition(err error) bool {
	if errors.Is(err, kgo.ErrRecordRetries) {
		return true // it could not even be sent
	}
	answer, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	switch answer {
	case kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut,
		kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.ReplicaNotAvailable, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch,
		kerr.KafkaStorageError, kerr.CorruptMessage, kerr.UnknownServerError,
		kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType, kerr.PolicyViolation:
		return true
	}
	return false
}

// bear decides what is done after refusals, once all has been undone. What is read
// again may be refused again as long as the cause is there, so the pause before that
// grows; see reload.
func (s *session) bear(ctx context.Context, all []*refusal) error {
	for _, r := range all {
		if tooBig(r.err) && !errors.Is(r.err, errPlaced) {
			return s.tooLarge(r)
		}
		if f := s.hopeless(r); f != nil {
			return f
		}
	}
	var partitions []*refusal
	for _, r := range all {
		if errors.Is(r.err, errPlaced) {
			continue // its partition stops when it comes to it again
		}
		if fault.IsExpired(r.err) {
			s.reporter.Info(expired, r.err, "transactional_id", s.cfg.TransactionalID())
			s.recoiling = true
			continue
		}
		s.reporter.Warn("a record was not accepted; going back to the last commit", r.err, "topic", r.topic, "partition", r.partition)
		s.recoiling = true
		if refusedForGood(r.err) {
			s.suspectWriterOf(r)
		} else {
			partitions = append(partitions, r)
		}
	}
	return s.tryAgainOrShut(ctx, partitions)
}

// errPlaced says that the place at which a partition stops is known.
var errPlaced = errors.New("its partition stops before it")

// writerOf returns the partition whose records go to an output partition.
func (s *session) writerOf(r *refusal) (writer *partition) {
	s.each(func(p *partition) {
		if p.Partition == r.partition && (p.Ordered == r.topic || p.Late == r.topic) {
			writer = p
		}
	})
	return writer
}

// suspect is a partition one of whose records brokers refuse, and of which it is not
// known which one it is, or whether they still do.
type suspect struct {
	left  int       // so many of the records to come are under suspicion
	alone bool      // they are sent one by one
	group []*handed // sent, and not yet waited for
	shut  error     // why the output partition took none; it is tried again
}

// handed is a record that has been handed to the client.
type handed struct {
	r      *kgo.Record
	offset int64 // of the source
	held   bool
	err    error // that it was answered with
}

// groupSize is how many records of a suspect are sent together.
const groupSize = 512

func (s *session) suspectWriterOf(r *refusal) {
	if p := s.writerOf(r); p != nil {
		s.suspects[p.Source] = &suspect{left: p.put}
	}
}

// examine hands over a record of a suspect.
func (s *session) examine(ctx context.Context, p *partition, at *suspect, r *kgo.Record, offset int64, held bool) error {
	if at.left--; at.left <= 0 {
		defer func() {
			if s.examined != p && s.suspects[p.Source] == at {
				delete(s.suspects, p.Source)
			}
		}()
	}
	if at.alone || s.limits.wide {
		return s.alone(ctx, p, r, offset, held)
	}
	h := &handed{r: r, offset: offset, held: held}
	at.group = append(at.group, h)
	s.examined = p
	s.flight.add(r)
	s.hand(ctx, h)
	if len(at.group) < groupSize && at.left > 0 {
		return nil
	}
	return s.closeGroup(ctx, true)
}

func (s *session) hand(ctx context.Context, h *handed) {
	h.err, h.r.Context = nil, nil
	s.cl.Produce(ctx, h.r, func(_ *kgo.Record, err error) { h.err = err })
}

// closeGroup waits for the group of a suspect that is under way. With stop, the
// partition may be stopped on the spot, and then errStopped is returned; without, that
// is left to its coming to the record again.
func (s *session) closeGroup(ctx context.Context, stop bool) error {
	p := s.examined
	if p == nil {
		return nil
	}
	at := s.suspects[p.Source]
	group := at.group
	s.examined, at.group = nil, nil
	if err := s.flush(ctx); err != nil {
		return err
	}
	culprit, err := sifter{
		send:    func(h *handed) error { s.hand(ctx, h); return nil },
		flush:   func() error { return s.flush(ctx) },
		forGood: refusedForGood,
	}.first(refusedOf(group))
	if err != nil {
		return err
	}
	if culprit == nil {
		for _, h := range group {
			s.flight.land(h.r, h.err) // some may have come to another error
		}
		return s.heed(ctx)
	}
	for _, h := range group {
		s.flight.land(h.r, nil)
	}
	// A record behind the one at fault may have been taken all the same: late and
	// ordered records go to two output partitions.
	taken := len(refusedOf(group)) < len(group)
	return s.condemn(ctx, p, culprit, stop && !taken && p.put == len(group))
}

func refusedOf(hs []*handed) (refused []*handed) {
	for _, h := range hs {
		if h.err != nil {
			refused = append(refused, h)
		}
	}
	return refused
}

// sifter finds out which record it is that brokers refuse for good.
type sifter struct {
	send    func(*handed) error // to the client; the answer comes to the record itself
	flush   func() error
	forGood func(error) bool
}

// first sends refused records again, in order and in ever smaller parts, up to the first
// that is refused by itself; nil: it met none. It stops at any other error, which it leaves
// with the records that were not taken.
func (f sifter) first(refused []*handed) (*handed, error) {
	const tries = 3 // of a record alone
	for _, h := range refused {
		if !f.forGood(h.err) {
			return nil, nil
		}
	}
	if len(refused) == 1 {
		h := refused[0]
		for range tries {
			if err := f.again(refused); err != nil || !f.forGood(h.err) {
				return nil, err
			}
		}
		return h, nil
	}
	for half := (len(refused) + 1) / 2; len(refused) > 0; refused = refused[min(half, len(refused)):] {
		part := refused[:min(half, len(refused))]
		if err := f.again(part); err != nil {
			return nil, err
		}
		culprit, err := f.first(refusedOf(part))
		if culprit != nil || err != nil {
			return culprit, err
		}
		if len(refusedOf(part)) > 0 {
			return nil, nil // what follows must not overtake them
		}
	}
	return nil, nil
}

func (f sifter) again(hs []*handed) error {
	for _, h := range hs {
		if err := f.send(h); err != nil {
			return err
		}
	}
	return f.flush()
}

// condemn has a partition stop before a record: now, if nothing of the partition is
// put out since the last commit, else when it comes to the record again.
func (s *session) condemn(ctx context.Context, p *partition, h *handed, now bool) error {
	delete(s.suspects, p.Source)
	kind := errForGood
	if tooBig(h.err) {
		kind = errBare
	}
	at := place{late: h.r.Topic == p.Late, held: h.held, offset: h.offset, err: fmt.Errorf("%w: %w", kind, h.err), keyless: h.r.Key == nil}
	s.stuck[p.Source] = at
	if now {
		return s.drop(p, h.held, h.offset, s.refusalAt(p, at))
	}
	s.unacked.add(&refusal{topic: h.r.Topic, partition: h.r.Partition, err: fmt.Errorf("%w: %w", errPlaced, h.err)})
	return s.commit(ctx) // which goes back to the last commit
}

var errForGood = errors.New("the brokers refuse the record for good")

// refusalAt returns a standing at a place.
func (s *session) refusalAt(p *partition, at place) halting {
	topic := p.Ordered
	if at.late {
		topic = p.Late
	}
	t := fault.CommandsFor(s.cfg)
	h := halting{why: fmt.Errorf("write the record at offset %d to %s: %w", at.offset, topic, at.err)}
	switch {
	case refusedForGood(at.err):
		h.hint = letIn(t, topic, at.err, at.keyless)
	case errors.Is(at.err, kerr.RecordListTooLarge):
		h.hint = "raise the limit: " + t.Set(topic, "segment.bytes", "BYTES")
	default:
		h.hint = "raise the limit: " + t.Set(topic, fault.MaxMessageBytes, "BYTES")
	}
	return h
}

// letIn says what has a record taken that is refused for good.
func letIn(t fault.Commands, topic string, err error, keyless bool) string {
	switch {
	case errors.Is(err, kerr.InvalidTimestamp):
		return "the topic refuses times that its source has let in: " +
			t.Set(topic, fault.TimestampBefore, "9223372036854775807") + "; and " + t.Set(topic, fault.TimestampAfter, "9223372036854775807")
	case keyless:
		return "a compacted topic takes no record without a key: " + t.Set(topic, "cleanup.policy", "delete") +
			"; if it is not compacted, the brokers' logs say what they find fault with"
	}
	return "the brokers' logs say what they find fault with; change what makes them refuse it, such as a validation of schemas on " + topic
}

// halting is why a partition is stopped, and what mends it.
type halting struct {
	why  error
	hint string
}

// drop stops a partition of which only one thing is not committed: that it came to a
// record which was refused. Its state in memory is void, and nobody else's.
func (s *session) drop(p *partition, held bool, offset int64, h halting) error {
	p.ledger.Abort()
	if held {
		s.releaseLatency.TakeBack()
	}
	s.standStill(p, h.why, h.hint)
	why := s.reasons[p.Source]
	why.last.Low = p.committed
	if !held {
		why.last.Next = min(why.last.Next, offset)
	}
	s.reasons[p.Source] = why
	return errStopped
}

// acknowledged takes the answer to a record that was sent alone.
func (s *session) acknowledged(ctx context.Context, p *partition, r *kgo.Record, offset int64, held bool, err error) error {
	at := s.suspects[p.Source]
	h := &handed{r: r, offset: offset, held: held, err: err}
	switch {
	case refusedForGood(err):
		s.flight.land(r, nil)
		return s.condemn(ctx, p, h, p.put == 1)
	case err != nil && at != nil && at.shut != nil && p.put == 1:
		s.flight.land(r, nil)
		if !aboutPartition(err) {
			err = at.shut // it was not waited for
		}
		delete(s.suspects, p.Source)
		s.shut[p.Source] = closed{err: err}
		return s.drop(p, held, offset, s.shutOut(p, err))
	}
	s.flight.land(r, err)
	return nil
}

// closed is an output partition that takes nothing.
type closed struct {
	err     error
	visible bool // the brokers say that it has no leader, or too few replicas
}

// patience is how many times in a row it is gone back to the commit for what an output
// partition refuses.
const patience = 5

// tryAgainOrShut has the partitions stop whose output partitions take nothing. Where all
// partitions are refused that put out anything, it may as well be the cluster or our
// producer: nobody would be helped, and all would have to wait for the next try.
func (s *session) tryAgainOrShut(ctx context.Context, all []*refusal) error {
	var about []*partition
	errs := map[*partition]error{}
	apart := s.someAccepted(all)
	for _, r := range all {
		p := s.writerOf(r)
		if p == nil || fault.IsFenced(r.err) {
			continue
		}
		n := s.refusals[p.Source].times + 1
		s.refusals[p.Source] = refused{times: n, low: p.state.Low()}
		switch {
		case apart && aboutPartition(r.err):
			about, errs[p] = append(about, p), r.err
		case n > patience:
			// it may be the client that cannot any more
			return fmt.Errorf("write to %s partition %d, tried %d times: %w", r.topic, r.partition, n, r.err)
		}
	}
	if len(about) == 0 {
		return nil
	}
	why, err := s.unwritable(ctx, about)
	for _, p := range about {
		often := s.refusals[p.Source].times > patience
		switch {
		case why[p.Source] != nil:
			s.shut[p.Source] = closed{err: fmt.Errorf("%w: %w", why[p.Source], errs[p]), visible: true}
		case often && err != nil:
			return fmt.Errorf("write to the outputs of %s partition %d, tried %d times: %w", p.Topic, p.Partition, patience+1, errs[p])
		case often:
			s.shut[p.Source] = closed{err: errs[p]}
		}
	}
	return nil
}

// someAccepted reports whether a partition put something out and is not among those
// that are refused.
func (s *session) someAccepted(all []*refusal) (some bool) {
	refused := map[*partition]bool{}
	for _, r := range all {
		refused[s.writerOf(r)] = true
	}
	s.each(func(p *partition) { some = some || p.put > 0 && !refused[p] })
	return some
}

// errUnwritable says that brokers know why an output partition takes nothing.
var errUnwritable = errors.New("no records can be written now")

// unwritable asks which of the partitions have an output partition that brokers say
// takes no records, and why. Nothing is tried there: a partition of which as much as
// one record was tried belongs to the transaction, and that cannot end before it is
// there again.
func (s *session) unwritable(ctx context.Context, ps []*partition) (map[emit.Source]error, error) {
	srcs := make([]emit.Source, len(ps))
	for i, p := range ps {
		srcs[i] = p.Source
	}
	return s.unwritableOf(ctx, srcs)
}

func (s *session) unwritableOf(ctx context.Context, srcs []emit.Source) (map[emit.Source]error, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // the loop waits
	defer cancel()
	var topics []string
	seen := map[string]bool{}
	for _, src := range srcs {
		for _, topic := range []string{src.Ordered, src.Late} {
			if !seen[topic] {
				seen[topic] = true
				topics = append(topics, topic)
			}
		}
	}
	listed, err := s.adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil, err
	}
	least := s.minInSync(ctx, topics)
	why := map[emit.Source]error{}
	for _, src := range srcs {
		for _, topic := range []string{src.Ordered, src.Late} {
			d, ok := listed[topic].Partitions[src.Partition]
			switch {
			case !ok:
			case d.Leader < 0 || errors.Is(d.Err, kerr.LeaderNotAvailable):
				why[src] = fmt.Errorf("%s partition %d has no leader: %w", topic, src.Partition, errUnwritable)
			case len(d.ISR) < least[topic]:
				why[src] = fmt.Errorf("%s partition %d has %d replicas in sync, and min.insync.replicas is %d: %w", topic, src.Partition, len(d.ISR), least[topic], errUnwritable)
			}
		}
	}
	return why, nil
}

// minInSync returns min.insync.replicas of topics, as far as it may be asked for.
func (s *session) minInSync(ctx context.Context, topics []string) map[string]int {
	least := map[string]int{}
	configs, err := s.adm.DescribeTopicConfigs(ctx, topics...)
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

// shutOut returns the standing of a partition whose output takes nothing.
func (s *session) shutOut(p *partition, err error) halting {
	return halting{
		why:  fmt.Errorf("write to %s and %s partition %d: %w", p.Ordered, p.Late, p.Partition, err),
		hint: "see that the partition has a leader and enough replicas in sync: " + fault.CommandsFor(s.cfg).Line("kafka-topics", "--describe", "--topic", p.Ordered),
	}
}

// standShut has the partitions stop whose outputs take nothing. All has been undone.
func (s *session) standShut() {
	if len(s.shut) == 0 {
		return
	}
	var stop []*partition
	s.each(func(p *partition) {
		if _, shut := s.shut[p.Source]; shut {
			stop = append(stop, p)
		}
	})
	for _, p := range stop {
		h := s.shutOut(p, s.shut[p.Source].err)
		s.standStill(p, h.why, h.hint)
		delete(s.refusals, p.Source)
	}
}

// retryShut is how often it is asked whether an output partition is there again that
// brokers say is not.
const retryShut = 2 * time.Second

// open returns those of the partitions whose outputs may take records again.
func (s *session) open(ctx context.Context, shut []emit.Source) []emit.Source {
	if len(shut) == 0 {
		return nil
	}
	why, err := s.unwritableOf(ctx, shut)
	var open []emit.Source
	for _, src := range shut {
		s.stopped[src] = s.now()
		known := cmpErr(why[src], err)
		if known == nil {
			open = append(open, src)
			continue
		}
		s.shut[src] = closed{err: known, visible: true}
		reason := s.reasons[src]
		s.reporter.Error(fmt.Sprint(src.Topic, src.Partition), "a partition stands still; it is tried again every "+retryStopped.String(), known,
			"topic", src.Topic, "partition", src.Partition, "hint", reason.hint)
	}
	return open
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// forgive forgets the refusals that partitions have got past.
func (s *session) forgive() {
	s.each(func(p *partition) {
		if r, ok := s.refusals[p.Source]; ok && p.state.Low() > r.low {
			delete(s.refusals, p.Source)
		}
	})
	if len(s.refusals) == 0 {
		s.recoil = recoil
	}
}

// refused is what is remembered of a source partition of which brokers did not
// accept a record, until it gets past that record.
type refused struct {
	times int
	low   int64 // L at the last of them
}

// hopeless returns a fault if trying again would be no use to any partition.
func (s *session) hopeless(r *refusal) *fault.Fault {
	t := fault.CommandsFor(s.cfg)
	err := fmt.Errorf("write to %s partition %d: %w", r.topic, r.partition, r.err)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault.Usage(err, "allow it: "+t.Allow("--topic", r.topic, kadm.OpWrite, kadm.OpDescribe, kadm.OpRead))
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fault.Failed(err, "the topic is gone; start again, and it is created")
	}
	return fault.Permanent(s.cfg, err)
}
