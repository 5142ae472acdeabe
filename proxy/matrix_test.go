package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
)

// The matrix: every request that matters, answered with every error that the
// protocol lists for it and that brokers are known to give. What passes leaves
// no trace in the outputs: they are those of a run in which nothing happened.
// What can never work ends the process, which then names what it is about and
// the way out.

// row is a request and what becomes of it with each error.
type row struct {
	way way
	key kmsg.Key

	told   errs    // goes on; counted as the brokers'
	late   errs    // goes on; it shows as an answer that does not come in time
	hidden errs    // goes on; the client deals with it, and need not tell
	fenced errs    // goes on twice in a minute, and ends the third time
	ends   endings // the process ends
}

type (
	errs    = []*kerr.Error
	endings = map[*kerr.Error]end
)

// end is how the process ends, and what its last words name.
type end struct {
	code  int
	names string
}

// What can be named. Every cell has a cluster of its own.
const (
	rawTopic = "raw1"
	outTopic = "raw1.ordered"
	itsGroup = "sidecar-raw1"
	itsID    = "sidecar-raw1/a"
	anyone   = "--cluster"
)

// way is how a sidecar talks to the brokers.
type way struct {
	name, delivery string
	versions       *kversion.Versions // of its requests, at the most
}

var (
	exactly = way{"exactly-once", "exactly-once", nil}
	// Before KIP-890 partitions and offsets are announced to a transaction's
	// coordinator in requests of their own.
	announced = way{"announced", "exactly-once", kversion.V3_7_0()}
	atLeast   = way{"at-least-once", "at-least-once", nil}
)

var (
	moving = errs{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator}
	// An abort mends these, a new epoch those.
	abortable = errs{kerr.TransactionAbortable, kerr.InvalidTxnState, kerr.UnknownServerError}
	overtaken = errs{kerr.ProducerFenced, kerr.InvalidProducerEpoch}
	noTxn     = end{2, itsID}
	noGroup   = end{2, itsGroup}
	noSource  = end{2, rawTopic}
	twice     = end{1, "instance \"a\""}
)

// Left out: MESSAGE_TOO_LARGE, INVALID_TIMESTAMP and INVALID_RECORD are about one record,
// and have tests of their own; so has OFFSET_OUT_OF_RANGE, which is data loss. A
// producer id is asked for without one, so that cannot be fenced. Brokers do
// not answer PRODUCER_FENCED to a produce.
var matrix = []row{
	{
		way: exactly, key: kmsg.Produce,
		told: slices.Concat(abortable, errs{
			kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.NotEnoughReplicas, kerr.KafkaStorageError, kerr.CorruptMessage,
			kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber,
		}),
		late: errs{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.ConcurrentTransactions},
		ends: endings{
			kerr.TopicAuthorizationFailed: {2, outTopic}, kerr.TransactionalIDAuthorizationFailed: noTxn, kerr.ClusterAuthorizationFailed: {2, anyone},
			kerr.UnknownTopicOrPartition: {1, outTopic}, kerr.UnknownTopicID: {1, outTopic},
		},
	},
	{
		way: atLeast, key: kmsg.Produce,
		told: errs{kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.KafkaStorageError, kerr.CorruptMessage, kerr.UnknownServerError},
		late: errs{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber},
		ends: endings{kerr.TopicAuthorizationFailed: {2, outTopic}, kerr.ClusterAuthorizationFailed: {2, anyone}},
	},
	{
		way: exactly, key: kmsg.EndTxn,
		told:   slices.Concat(moving, abortable, errs{kerr.ConcurrentTransactions, kerr.InvalidProducerIDMapping}),
		fenced: overtaken,
		ends:   endings{kerr.TransactionalIDAuthorizationFailed: noTxn},
	},
	{
		way: announced, key: kmsg.AddPartitionsToTxn,
		told:   slices.Concat(abortable, errs{kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping}),
		late:   slices.Concat(moving, errs{kerr.ConcurrentTransactions, kerr.UnknownTopicOrPartition, kerr.OperationNotAttempted}),
		fenced: errs{kerr.ProducerFenced},
		ends:   endings{kerr.TransactionalIDAuthorizationFailed: noTxn, kerr.TopicAuthorizationFailed: {2, rawTopic + "."}},
	},
	{
		way: announced, key: kmsg.AddOffsetsToTxn,
		told:   slices.Concat(abortable, moving, errs{kerr.ConcurrentTransactions, kerr.InvalidProducerIDMapping}),
		fenced: overtaken,
		ends:   endings{kerr.TransactionalIDAuthorizationFailed: noTxn, kerr.GroupAuthorizationFailed: noGroup},
	},
	{
		way: exactly, key: kmsg.TxnOffsetCommit,
		told: slices.Concat(abortable, errs{
			kerr.ConcurrentTransactions, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.RequestTimedOut,
			kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidProducerIDMapping,
		}),
		late:   moving,
		fenced: overtaken,
		ends: endings{
			kerr.TransactionalIDAuthorizationFailed: noTxn, kerr.GroupAuthorizationFailed: noGroup,
			kerr.TopicAuthorizationFailed: noSource, kerr.FencedInstanceID: twice,
		},
	},
	{
		way: exactly, key: kmsg.DescribeTransactions, // before a commit without records, which is tried all the same
		hidden: slices.Concat(moving, errs{kerr.TransactionalIDNotFound, kerr.TransactionalIDAuthorizationFailed, kerr.UnknownServerError}),
	},
	{
		way: exactly, key: kmsg.InitProducerID,
		told:   errs{kerr.UnknownServerError, kerr.RequestTimedOut},
		hidden: slices.Concat(moving, errs{kerr.ConcurrentTransactions}),
		ends:   endings{kerr.TransactionalIDAuthorizationFailed: noTxn, kerr.InvalidTransactionTimeout: noTxn},
	},
	{
		// With REQUEST_TIMED_OUT the client asks again at once, for ever.
		way: atLeast, key: kmsg.InitProducerID,
		told: errs{kerr.UnknownServerError},
		late: errs{kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable},
		ends: endings{kerr.ClusterAuthorizationFailed: {2, anyone}},
	},
	{
		way: exactly, key: kmsg.OffsetFetch,
		told:   errs{kerr.UnknownServerError},
		hidden: slices.Concat(moving, errs{kerr.UnstableOffsetCommit, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID}),
		ends:   endings{kerr.GroupAuthorizationFailed: noGroup, kerr.TopicAuthorizationFailed: noSource},
	},
	{
		way: atLeast, key: kmsg.OffsetCommit,
		told: errs{
			kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.RequestTimedOut, kerr.UnknownServerError,
			kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
		},
		hidden: moving,
		ends:   endings{kerr.GroupAuthorizationFailed: noGroup, kerr.TopicAuthorizationFailed: noSource, kerr.FencedInstanceID: twice},
	},
	{
		way: exactly, key: kmsg.OffsetCommit, // where the group begins
		told:   errs{kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.UnknownServerError, kerr.UnknownTopicOrPartition},
		hidden: moving,
		ends:   endings{kerr.GroupAuthorizationFailed: noGroup, kerr.TopicAuthorizationFailed: noSource, kerr.FencedInstanceID: twice},
	},
	{
		way: exactly, key: kmsg.Heartbeat,
		told:   slices.Concat(moving, errs{kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.UnknownServerError}),
		hidden: errs{kerr.RebalanceInProgress},
		ends:   endings{kerr.GroupAuthorizationFailed: noGroup, kerr.FencedInstanceID: twice},
	},
	{
		way: atLeast, key: kmsg.Heartbeat,
		told:   slices.Concat(moving, errs{kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.UnknownServerError}),
		hidden: errs{kerr.RebalanceInProgress},
		ends:   endings{kerr.GroupAuthorizationFailed: noGroup, kerr.FencedInstanceID: twice},
	},
	{
		// With UNKNOWN_MEMBER_ID the client joins again at once, for ever.
		way: exactly, key: kmsg.JoinGroup,
		told: slices.Concat(moving, errs{kerr.GroupMaxSizeReached, kerr.RebalanceInProgress, kerr.UnknownServerError, kerr.InconsistentGroupProtocol}),
		ends: endings{
			kerr.GroupAuthorizationFailed: noGroup, kerr.FencedInstanceID: twice,
			kerr.InvalidSessionTimeout: noGroup, kerr.InvalidGroupID: noGroup,
		},
	},
	{
		// With REBALANCE_IN_PROGRESS the client joins again at once, for ever.
		way: exactly, key: kmsg.SyncGroup,
		told: slices.Concat(moving, errs{kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.UnknownServerError, kerr.InconsistentGroupProtocol}),
		ends: endings{kerr.GroupAuthorizationFailed: noGroup, kerr.FencedInstanceID: twice},
	},
	{
		way: exactly, key: kmsg.Fetch,
		told: errs{kerr.UnknownServerError},
		hidden: errs{
			kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.ReplicaNotAvailable, kerr.OffsetNotAvailable, kerr.KafkaStorageError,
			kerr.CorruptMessage, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.InconsistentTopicID, kerr.FetchSessionIDNotFound,
		},
		ends: endings{kerr.TopicAuthorizationFailed: noSource, kerr.UnknownTopicID: {1, rawTopic}},
	},
	{
		way: exactly, key: kmsg.Metadata,
		told: errs{kerr.LeaderNotAvailable, kerr.ReplicaNotAvailable, kerr.UnknownServerError},
		ends: endings{kerr.UnknownTopicOrPartition: noSource, kerr.TopicAuthorizationFailed: noSource, kerr.InvalidTopicException: {1, rawTopic}},
	},
	{
		way: exactly, key: kmsg.ListOffsets,
		told: errs{
			kerr.LeaderNotAvailable, kerr.ReplicaNotAvailable, kerr.OffsetNotAvailable, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
			kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.UnknownServerError,
		},
		hidden: errs{kerr.NotLeaderForPartition},
		ends:   endings{kerr.TopicAuthorizationFailed: noSource},
	},
	{
		way: exactly, key: kmsg.FindCoordinator,
		told: errs{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.UnknownServerError},
		ends: endings{kerr.GroupAuthorizationFailed: noGroup, kerr.TransactionalIDAuthorizationFailed: noTxn},
	},
}

func TestMatrix(t *testing.T) {
	want := calmRun(t)
	cells := 0
	for _, r := range matrix {
		in := func(errs errs, f func(*testing.T, row, *kerr.Error)) {
			for _, err := range errs {
				if cells++; testing.Short() && cells%3 != 0 {
					continue
				}
				t.Run(r.way.name+"/"+r.key.Name()+"/"+err.Message, func(t *testing.T) {
					if r.key == kmsg.InitProducerID && r.way == atLeast && !channelLocks {
						skipped.Add(1)
						t.Skip("the client waits with a lock held: needs -tags synctests")
					}
					f(t, r, err)
				})
			}
		}
		in(r.told, func(t *testing.T, r row, err *kerr.Error) { passes(t, r, err, fault.Broker, want) })
		in(r.late, func(t *testing.T, r row, err *kerr.Error) { passes(t, r, err, fault.Network, want) })
		in(r.hidden, func(t *testing.T, r row, err *kerr.Error) { passes(t, r, err, fault.None, want) })
		in(r.fenced, func(t *testing.T, r row, err *kerr.Error) {
			goesOn(t, r, err, 2, want)
			endsWith(t, r, err, end{1, itsID})
		})
		for err, e := range r.ends {
			in(errs{err}, func(t *testing.T, r row, err *kerr.Error) { endsWith(t, r, err, e) })
		}
	}
}

// passes has a request fail now and then, and then for longer than a
// transaction lasts. Once it no longer does, the output goes on.
func passes(t *testing.T, r row, err *kerr.Error, told fault.Class, want calm) {
	if !r.first() {
		goesOn(t, r, err, 3, want)
	}
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(cellPartitions)
		var s *sidecar
		written := c.cell(topic, !r.asksToo())
		if !r.first() {
			s = r.way.start(c, topic)
			c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		}
		h := c.disturb(topic, r, err, -1)
		if s == nil {
			s = r.way.start(c, topic)
		}
		time.Sleep(outage)
		if h.Hits() == 0 {
			t.Error("nothing failed")
		}
		h.Remove()
		<-written
		took := since(func() { c.awaitRead(s) })
		// The test's own client asks some of it, too, and waits longer.
		if limit := 3 * time.Second; took > limit && !r.asksToo() || took > 2*limit {
			t.Errorf("it took %v to go on", took)
		}
		s.stop()
		c.undisturbed(s.cfg, want)
		got := s.proc.reporter.Snapshot()
		if told == fault.Broker && got.Broker == 0 || told == fault.Network && got.Network == 0 {
			t.Errorf("counted %+v, expected %v", got, told)
		}
	})
}

// outage is longer than a transaction lasts.
const outage = 12 * time.Second

// goesOn has some requests fail, at any moment.
func goesOn(t *testing.T, r row, err *kerr.Error, times int, want calm) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(cellPartitions)
		h := c.disturb(topic, r, err, times)
		s := r.way.start(c, topic)
		<-c.cell(topic, true)
		c.awaitRead(s)
		if h.Hits() == 0 {
			t.Error("nothing failed")
		}
		s.stop()
		c.undisturbed(s.cfg, want)
	})
}

// endsWith has every request fail, and expects the process to end.
func endsWith(t *testing.T, r row, err *kerr.Error, want end) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(cellPartitions)
		c.cell(topic, !r.asksToo())
		var s *sidecar
		if !r.first() {
			s = r.way.start(c, topic)
			c.await("the first commit", func() bool { return len(c.commits(s.cfg)) > 0 })
		}
		c.disturb(topic, r, err, -1)
		if s == nil {
			s = r.way.start(c, topic)
		}
		f := s.fails()
		if f.Code != want.code || !strings.Contains(f.Error()+f.Advice, want.names) {
			t.Errorf("exit code %d, want %d with %s in: %v\nhint: %s", f.Code, want.code, want.names, f, f.Advice)
		}
		if f.Advice == "" {
			t.Errorf("no hint: %v", f)
		}
	})
}

// first reports whether a request is sent before anything is read, and hardly
// ever again.
func (r row) first() bool {
	switch r.key {
	case kmsg.InitProducerID, kmsg.OffsetFetch, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Metadata, kmsg.FindCoordinator, kmsg.ListOffsets:
		return true
	}
	return r.key == kmsg.OffsetCommit && r.way != atLeast
}

// asksToo reports whether the test's own clients send such requests, and
// cannot be told from the sidecar.
func (r row) asksToo() bool {
	return r.key == kmsg.Metadata || r.key == kmsg.FindCoordinator || r.key == kmsg.InitProducerID && r.way == atLeast
}

func (w way) start(c *cluster, topic string) *sidecar {
	if w.versions != nil {
		c.connection = append(slices.Clone(c.connection), kgo.MaxVersions(w.versions))
	}
	return c.start(topic, w.env()...)
}

func (w way) env() []string {
	return []string{noDrain, "TIDEMARK_COMMIT_INTERVAL=20ms", "TIDEMARK_DELIVERY=" + w.delivery}
}

// disturb makes requests fail that are the sidecar's: as often as told, each
// with an even chance, or all of them.
func (c *cluster) disturb(topic string, r row, err *kerr.Error, times int) *kfake.FaultHandle {
	cfg := c.config(topic, r.way.env()...)
	f := kfake.Fault{Keys: []kmsg.Key{r.key}, Err: err, Count: times}
	switch r.key {
	case kmsg.Produce:
		f.Topic = cfg.OrderedTopic(topic)
	case kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata:
		f.Topic = topic
	case kmsg.OffsetFetch, kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetCommit:
		f.Group = cfg.Group
	case kmsg.FindCoordinator:
		switch err {
		case kerr.GroupAuthorizationFailed:
			f.Group = cfg.Group
		case kerr.TransactionalIDAuthorizationFailed:
			f.TxnID = cfg.TransactionalID()
		}
	default:
		if cfg.Delivery == config.ExactlyOnce {
			f.TxnID = cfg.TransactionalID()
		}
	}
	rnd := rand.New(rand.NewPCG(uint64(r.key), uint64(err.Code)))
	var last kmsg.Request
	var hit bool
	f.When = func(req kmsg.Request) bool {
		if req != last { // it is asked for every partition of a request
			last, hit = req, times < 0 || r.key == kmsg.Heartbeat || rnd.IntN(2) == 0
			if init, ok := req.(*kmsg.InitProducerIDRequest); ok && (init.TransactionalID == nil) != (f.TxnID == "") {
				hit = false // the test's
			}
		}
		return hit
	}
	return c.fake.Fault(f)
}

const cellPartitions = 3

// cell writes the log of all cells: all of it before it returns, or while the
// test goes on.
func (c *cluster) cell(topic string, meanwhile bool) <-chan struct{} {
	w := cellLoad()
	if meanwhile {
		return c.writing(topic, w)
	}
	c.write(topic, w)
	done := make(chan struct{})
	close(done)
	return done
}

func cellLoad() *workload {
	return &workload{
		seed: 7, records: 300, partitions: cellPartitions, transactions: true, step: 10 * time.Millisecond,
		base: time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC), pause: 40 * time.Millisecond, chunk: 30,
	}
}

// calm is what comes out when nothing goes wrong. Names are the same in every
// cell, and bytes depend on nothing but the log, so one run is enough.
type calm struct{ lines, state []string }

// calmRun makes the undisturbed run.
func calmRun(t *testing.T) (calm calm) {
	t.Helper()
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(cellPartitions)
		s := exactly.start(c, topic)
		w := cellLoad()
		<-c.writing(topic, w)
		c.awaitRead(s)
		s.stop()
		if r := c.holds(s.cfg, w); r.Ordered < 100 || r.Buffered == 0 || w.late == 0 {
			t.Errorf("%d ordered, %d buffered, %d late, %d invalid: not much of a test", r.Ordered, r.Buffered, w.late, w.invalid)
		}
		calm.lines, calm.state = c.trace(s.cfg)
		if got := s.proc.reporter.Snapshot(); got.Broker+got.Network+got.Aborts > 0 || got.Record != w.invalid || got.Sessions != 1 || got.Rebalances == 0 {
			t.Errorf("nothing happened, and counted was %+v", got)
		}
	})
	return calm
}

// undisturbed checks that a run put out what the calm one did, and stands
// where it does.
func (c *cluster) undisturbed(cfg config.Config, want calm) {
	c.t.Helper()
	c.verify(cfg)
	lines, state := c.trace(cfg)
	for i := range min(len(lines), len(want.lines)) {
		if lines[i] != want.lines[i] {
			c.t.Errorf("output %d differs:\n got %.300s\nwant %.300s", i, lines[i], want.lines[i])
			break
		}
	}
	if len(lines) != len(want.lines) {
		c.t.Errorf("%d outputs, want %d", len(lines), len(want.lines))
	}
	if !slices.Equal(state, want.state) {
		c.t.Errorf("committed state differs:\n got %q\nwant %q", state, want.state)
	}
}

// trace is what a run put out, and the state that it stands at. What came
// again, at least once, is left out.
func (c *cluster) trace(cfg config.Config) (lines, state []string) {
	c.t.Helper()
	seen := map[string]bool{}
	for _, line := range c.bytesOf(cfg) {
		if !seen[line] || cfg.Delivery == config.ExactlyOnce {
			lines = append(lines, line)
		}
		seen[line] = true
	}
	for _, snap := range c.commits(cfg) {
		snap.Steps = nil // they hold the wall clock
		state = append(state, fmt.Sprint(snap))
	}
	return lines, state
}

// A request is lost with its connection, or carried out and its answer lost:
// the sidecar cannot tell one from the other.
func TestMatrixConnectionsLost(t *testing.T) {
	want := calmRun(t)
	lost := func(w way, keys ...kmsg.Key) {
		for _, key := range keys {
			for what, lose := range map[string]func(*link, kmsg.Key, int){"request": (*link).loseRequests, "answer": (*link).loseAnswers} {
				t.Run(w.name+"/"+key.Name()+"/"+what, func(t *testing.T) {
					onFake(t, func(t *testing.T, c *cluster) {
						topic := c.topic(cellPartitions)
						s := w.start(c, topic)
						lose(s.link, key, 3)
						<-c.cell(topic, true)
						c.awaitRead(s)
						if n := s.link.unlost(key); n == 3 { // some are sent once
							t.Error("nothing was lost")
						}
						s.stop()
						c.undisturbed(s.cfg, want)
						if got := s.proc.reporter.Snapshot(); got.Network == 0 {
							t.Errorf("counted %+v", got)
						}
					})
				})
			}
		}
	}
	lost(exactly, kmsg.Produce, kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.InitProducerID, kmsg.OffsetFetch, kmsg.OffsetCommit,
		kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Fetch, kmsg.Metadata, kmsg.ListOffsets, kmsg.FindCoordinator)
	lost(announced, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn)
	lost(atLeast, kmsg.Produce, kmsg.OffsetCommit, kmsg.InitProducerID)
}

// A dead instance left a transaction open on the outputs. Whatever keeps the
// survivor from ending it is told of, and costs no more than the transaction's
// timeout.
func TestMatrixDeadTransaction(t *testing.T) {
	besideOthers(t)
	for key, answers := range map[kmsg.Key]errs{
		kmsg.DescribeProducers: {
			kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.TopicAuthorizationFailed, kerr.UnknownServerError,
		},
		kmsg.ListTransactions: {kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.UnknownServerError},
		kmsg.DescribeGroups:   {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.GroupAuthorizationFailed},
		kmsg.InitProducerID:   {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.TransactionalIDAuthorizationFailed},
	} {
		for _, err := range answers {
			t.Run(key.Name()+"/"+err.Message, func(t *testing.T) {
				onFake(t, func(t *testing.T, c *cluster) {
					topic := c.topic(1)
					base := time.Now().Add(-time.Hour).UnixMilli()
					c.produce(c.cl, record(topic, 0, base, "first"))
					s := c.start(topic, noDrain)
					c.awaitRead(s)
					s.stop()
					c.produce(c.cl, record(topic, 0, base+1000, "second"))
					c.dies(topic)
					f := kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: -1}
					switch key {
					case kmsg.DescribeProducers:
						f.Topic = topic + ".ordered"
					case kmsg.DescribeGroups:
						f.Group = "sidecar-" + topic
					case kmsg.InitProducerID:
						f.TxnID = deadID(topic)
					}
					h := c.fake.Fault(f)
					s = c.start(topic, noDrain)
					took := since(func() {
						c.await("the first record out", func() bool { s.lives(); return len(c.contents(topic + ".ordered")[0]) > 0 })
					})
					if h.Hits() == 0 || took > deadTimeout+group.FencePatience+2*time.Second {
						t.Errorf("%d failed, the first record came out after %v", h.Hits(), took)
					}
					s.stop()
					if got := s.proc.reporter.Snapshot(); got.Broker+got.Network == 0 {
						t.Errorf("counted %+v", got)
					}
				})
			})
		}
	}
}

const deadTimeout = 5 * time.Second

func deadID(topic string) string { return "sidecar-" + topic + "/dead" }

// dies leaves a transaction open on an output of a topic, as an instance does
// that dies.
func (c *cluster) dies(topic string) {
	c.t.Helper()
	dead := newLink(c.dial)
	cl, err := kgo.NewClient(append(slices.Clone(c.connection), kgo.Dialer(dead.DialContext), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.TransactionalID(deadID(topic)), kgo.TransactionTimeout(deadTimeout))...)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cl.BeginTransaction(); err != nil {
		c.t.Fatal(err)
	}
	c.produce(cl, record(topic+".ordered", 0, 0, "never"))
	dead.cut()
	cl.Close()
}

// Brokers that take less metadata than we write: that can never work.
func TestMetadataTooLarge(t *testing.T) {
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			s := c.start(topic, noDrain, "TIDEMARK_DELIVERY="+delivery)
			c.await("the first commit", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
			c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit, kmsg.OffsetCommit}, Err: kerr.OffsetMetadataTooLarge, Count: -1})
			base := time.Now().Add(-time.Hour)
			c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 9, nil))
			if fault := s.fails(); fault.Code != 2 || !strings.Contains(fault.Advice, "offset.metadata.max.bytes") {
				t.Errorf("exit code %d: %v (hint: %s)", fault.Code, fault, fault.Advice)
			}
		})
	}
}

// What ends every session at once is told now and then, and not with all that
// sessions say of themselves.
func TestFruitlessSessionsAreQuiet(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1, "max.message.bytes=50000") // worth a warning
		}
		s := c.start(topic, noDrain)
		c.await("the first commit", func() bool { s.lives(); return len(c.commits(s.cfg)) == 1 })
		c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidTxnState, Count: -1})
		base := time.Now().Add(-time.Hour)
		c.produce(c.cl, timed(topic, base, 0, nil), timed(topic, base, 9, nil))
		before, sessions := s.voice.lines.Load(), s.proc.reporter.Snapshot().Sessions
		time.Sleep(10 * time.Minute)
		if n := s.voice.lines.Load() - before; n > 100 {
			t.Errorf("%d lines in ten minutes", n)
		}
		if n := s.proc.reporter.Snapshot().Sessions - sessions; n < 100 {
			t.Errorf("only %d sessions", n)
		}
	})
}
