package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// testCluster is a cluster with the three topics of a source, and a client.
type testCluster struct {
	t     testing.TB
	fake  *kfake.Cluster
	addrs []string
	cl    *kgo.Client
}

func newTestCluster(t testing.TB, partitions int32) *testCluster {
	t.Helper()
	fake, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.SeedTopics(partitions, testTopic, testTopic+".ordered", testTopic+".late"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := &testCluster{t: t, fake: fake, addrs: fake.ListenAddrs()}
	c.cl = c.client()
	return c
}

func (c *testCluster) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	opts = append(opts, kgo.SeedBrokers(c.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// produce writes records to a topic as they are.
func (c *testCluster) produce(cl *kgo.Client, topic string, partition int32, log ...*kgo.Record) {
	c.t.Helper()
	rs := make([]*kgo.Record, len(log))
	for i, r := range log {
		rs[i] = &kgo.Record{
			Topic: topic, Partition: partition,
			Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp,
		}
	}
	if err := cl.ProduceSync(c.t.Context(), rs...).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
}

// commit commits for the group, as a proxy would have.
func (c *testCluster) commit(partition int32, s Scope) {
	c.t.Helper()
	adm := kadm.NewClient(c.cl)
	topics, err := adm.ListTopics(c.t.Context(), testTopic)
	if err != nil {
		c.t.Fatal(err)
	}
	snap := reorder.Fresh(s.Origin, 0, uint32(s.Epoch))
	snap.Low, snap.Next, snap.Count, snap.Sum = s.Committed, s.Next, uint32(s.Buffered), s.BufferedSum
	snap.W, snap.Natural, snap.Max = s.W, s.W, s.W
	var os kadm.Offsets
	os.Add(kadm.Offset{
		Topic: testTopic, Partition: partition, At: s.Committed, LeaderEpoch: -1,
		Metadata: snap.Encode(reorder.Scope{Group: "group", TopicID: topics[testTopic].ID, Partition: partition}),
	})
	if err := adm.CommitAllOffsets(c.t.Context(), "group", os); err != nil {
		c.t.Fatal(err)
	}
}

func testOptions() Options {
	return Options{
		Topics: []Topic{{
			Source: testTopic, Ordered: testTopic + ".ordered", Late: testTopic + ".late", EventTime: testTime,
		}},
		Group: "group", Prefix: "tidemark-",
	}
}

// load writes a history to the cluster, commit included. The source and
// .ordered end with aborted records.
func (c *testCluster) load(h *history) {
	c.t.Helper()
	c.produce(c.cl, testTopic+".ordered", h.partition, h.ordered...)
	c.produce(c.cl, testTopic+".late", h.partition, h.late...)
	c.produce(c.cl, testTopic, h.partition, h.raw...)
	c.abort(testTopic, h.partition)
	c.abort(testTopic+".ordered", h.partition)
	c.commit(h.partition, h.scope)
}

// abort writes records that no reader of committed records must see.
func (c *testCluster) abort(topic string, partition int32) {
	c.t.Helper()
	cl := c.client(kgo.TransactionalID(fmt.Sprint("aborts-", topic, partition)))
	if err := cl.BeginTransaction(); err != nil {
		c.t.Fatal(err)
	}
	c.produce(cl, topic, partition, &kgo.Record{Value: []byte("never")}, &kgo.Record{Value: []byte("mind")})
	if err := cl.EndTransaction(c.t.Context(), kgo.TryAbort); err != nil {
		c.t.Fatal(err)
	}
}

// mixed is a history with late, buffered and odd records.
func mixed(partition int32) *history {
	h := &history{partition: partition}
	e := &twin{
		h: h, withMark: true, withET: true, w: watermark.None, max: watermark.None,
		bound: watermark.Time(20 * time.Millisecond),
	}
	for i := range int64(40) {
		ms := i * 10
		switch {
		case i%10 == 7:
			ms -= 60
		case i%3 == 0:
			ms += 15
		}
		r := &kgo.Record{
			Offset: i, Timestamp: time.UnixMilli(ms), Value: []byte(strconv.Itoa(int(i))),
			Headers: []kgo.RecordHeader{{Key: "h", Value: nil}, {Key: "h", Value: []byte{}}, header("watermark", "fake")},
		}
		switch i % 4 {
		case 0:
			r.Key = []byte{}
		case 1:
			r.Value = nil
		case 2:
			r.Value = []byte{}
		}
		h.raw = append(h.raw, r)
		if i < 35 {
			e.step(r, false)
		}
	}
	h.scope = Scope{Committed: e.next, Next: e.next, W: e.w}
	for _, r := range e.held {
		h.scope.Committed = min(h.scope.Committed, r.Offset)
		h.scope.Buffered++
		h.scope.BufferedSum += reorder.OffsetHash(r.Offset)
	}
	return h
}

func TestVerifyHolds(t *testing.T) {
	c := newTestCluster(t, 3)
	for p := range int32(3) {
		c.load(mixed(p))
	}
	o := testOptions()
	var done, total int64
	o.Progress = func(d, of int64) { done, total = d, of }
	reports, err := Run(t.Context(), c.cl, o)
	if err != nil {
		t.Fatal(err)
	}
	for p, r := range reports {
		want := mixed(int32(p))
		if !r.Holds() || r.Partition != int32(p) || r.Read != 35 || r.Buffered != want.scope.Buffered ||
			r.Ordered != int64(len(want.ordered)) || r.Late["behind-watermark"] != 3 {
			t.Errorf("partition %d: %+v", p, r)
		}
	}
	if len(reports) != 3 || done != total || total == 0 {
		t.Errorf("%d reports, %d of %d done", len(reports), done, total)
	}
}

// TestVerifyFindsFaults puts one fault into each of three partitions.
func TestVerifyFindsFaults(t *testing.T) {
	c := newTestCluster(t, 3)
	lost, swapped, strayed := mixed(0), mixed(1), mixed(2)
	gone := lost.ordered[4]
	lost.ordered = slices.Delete(lost.ordered, 4, 5)
	swapped.ordered[7], swapped.ordered[8] = swapped.ordered[8], swapped.ordered[7]
	stranger := *strayed.raw[2]
	stranger.Value = []byte("from elsewhere")
	strayed.ordered = appendTo(strayed.ordered, &stranger, header("source-offset", 2))
	for _, h := range []*history{lost, swapped, strayed} {
		c.load(h)
	}
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	l := reports[0].Faults[KindLost]
	if l.Total != 1 || l.First[0].SourceOffset != lost.number(gone, "source-offset") || len(reports[0].Faults) != 1 {
		t.Errorf("lost: %+v", reports[0].Faults)
	}
	if f := reports[1].Faults[KindOutOfOrder]; f.Total != 1 || f.First[0].OutputOffset != 8 || f.First[0].Partition != 1 ||
		f.First[0].Output != testTopic+".ordered" {
		t.Errorf("out of order: %+v", reports[1].Faults)
	}
	if f := reports[2].Faults[KindDuplicate]; f.Total != 1 || f.First[0].SourceOffset != 2 {
		t.Errorf("stray: %+v", reports[2].Faults)
	}
}

// TestVerifyAfterRetention: what retention deleted is not missed.
func TestVerifyAfterRetention(t *testing.T) {
	c := newTestCluster(t, 1)
	c.load(mixed(0))
	var os kadm.Offsets
	os.AddOffset(testTopic, 0, 9, -1)
	os.AddOffset(testTopic+".ordered", 0, 20, -1)
	os.AddOffset(testTopic+".late", 0, 1, -1)
	deleted, err := kadm.NewClient(c.cl).DeleteRecords(t.Context(), os)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; !r.Holds() || r.Unproven == 0 || r.Ordered == 0 || r.Ordered > 15 {
		t.Errorf("%+v", r)
	}
}

// inEpoch gives ordered records an epoch.
func inEpoch(epoch int, log []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(log))
	for i, r := range log {
		c := *r
		c.Headers = append(slices.Clone(r.Headers), header("epoch", epoch))
		out[i] = &c
	}
	return out
}

// TestVerifyOfEachEpoch: what an earlier epoch has put out does not stand in for what
// the one after a reset has lost.
func TestVerifyOfEachEpoch(t *testing.T) {
	c := newTestCluster(t, 2)
	for p := range int32(2) {
		h := sequence(30)
		h.partition, h.scope.Origin, h.scope.Epoch = p, 0, 3
		second := inEpoch(3, h.ordered)
		if p == 1 {
			second = slices.Delete(second, 7, 8)
		}
		h.ordered = append(h.ordered[:20:20], second...)
		c.load(h)
	}
	o := testOptions()
	var done, total int64
	o.Progress = func(d, of int64) { done, total = d, of }
	reports, err := Run(t.Context(), c.cl, o)
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; !r.Holds() || r.Read != 30 || r.Replayed != 20 || r.Ordered != 50 {
		t.Errorf("whole: %+v", r)
	}
	if f := reports[1].Faults[KindLost]; f.Total != 1 || f.First[0].SourceOffset != 7 {
		t.Errorf("offset 7 is lost in epoch 3: %+v", reports[1])
	}
	if done != total {
		t.Errorf("%d of %d done", done, total)
	}
}

// TestVerifyAfterSourceIsCreatedAgain: the outputs of the earlier topic have no source
// any more, and are not records that were changed.
func TestVerifyAfterSourceIsCreatedAgain(t *testing.T) {
	c := newTestCluster(t, 1)
	old, h := sequence(40), sequence(25)
	for _, r := range slices.Concat(h.raw, h.ordered) {
		r.Value = append([]byte("new "), r.Value...)
	}
	h.scope.Epoch = 1
	h.ordered = append(old.ordered, inEpoch(1, h.ordered)...)
	c.load(h)
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; !r.Holds() || r.Expired != 40 || r.Read != 25 {
		t.Errorf("%+v", r)
	}
}

// TestVerifyNamesThePartition that brokers do not answer for.
func TestVerifyNamesThePartition(t *testing.T) {
	for _, topic := range []string{testTopic, testTopic + ".ordered"} {
		c := newTestCluster(t, 3)
		for p := range int32(3) {
			c.load(mixed(p))
		}
		c.cl = c.client(kgo.RetryTimeout(2 * time.Second))
		c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata, kmsg.ListOffsets}, Topic: topic, Partitions: []int32{1}, Err: kerr.LeaderNotAvailable, Count: -1})
		_, err := Run(t.Context(), c.cl, testOptions())
		if err == nil || !strings.Contains(err.Error(), topic+" partition 1: ") || !errors.Is(err, kerr.LeaderNotAvailable) {
			t.Errorf("a partition of %s has no leader: %v", topic, err)
		}
	}
}

// TestVerifyAsksForHeaders: what TIDEMARK_HEADERS asks for has to be there, as far as the
// output takes records that large.
func TestVerifyAsksForHeaders(t *testing.T) {
	c := newTestCluster(t, 1)
	h := mixed(0)
	for i, r := range h.ordered {
		if at := lastOf(r, "event-time"); i%2 == 0 && at >= 0 {
			h.ordered[i].Headers = slices.Delete(slices.Clone(r.Headers), at, at+1)
		}
	}
	c.load(h)
	o := testOptions()
	for _, tt := range []struct {
		asked   bool
		limit   string
		missing int64
		trimmed int64
	}{
		{true, "", int64(len(h.ordered)+1) / 2, 0},
		{false, "", 0, 0},
		{true, "150", 0, int64(len(h.ordered)+1) / 2},
	} {
		o.Required = emit.Headers{Watermark: true, SourceOffset: true, EventTime: tt.asked}
		if tt.limit != "" {
			_, err := kadm.NewClient(c.cl).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &tt.limit}}, testTopic+".ordered")
			if err != nil {
				t.Fatal(err)
			}
		}
		reports, err := Run(t.Context(), c.cl, o)
		if err != nil {
			t.Fatal(err)
		}
		if r := reports[0]; r.Faults[KindMissingHeader].Total != tt.missing || r.Trimmed != tt.trimmed || r.Holds() != (tt.missing == 0) {
			t.Errorf("%+v: %+v", tt, r)
		}
	}
}

// TestVerifyBeginsAtOrigin: what was there before the group is not read.
func TestVerifyBeginsAtOrigin(t *testing.T) {
	c := newTestCluster(t, 1)
	h := sequence(30)
	h.ordered = renumber(h.ordered[20:])
	h.scope.Origin = 20
	c.load(h)
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; !r.Holds() || r.Read != 10 || r.Ordered != 10 {
		t.Errorf("%+v", r)
	}
}

// TestVerifyFollowsTheLeader: a fetch that a broker refuses for a while is
// asked again, and one that it refuses for good is not.
func TestVerifyFollowsTheLeader(t *testing.T) {
	c := newTestCluster(t, 1)
	c.load(mixed(0))
	left, code := 3, kerr.NotLeaderForPartition.Code
	c.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		if left--; left < 0 {
			return nil, nil, false
		}
		f := req.(*kmsg.FetchRequest)
		part := kmsg.NewFetchResponseTopicPartition()
		part.ErrorCode = code
		topic := kmsg.NewFetchResponseTopic()
		topic.TopicID = f.Topics[0].TopicID
		topic.Partitions = append(topic.Partitions, part)
		resp := f.ResponseKind().(*kmsg.FetchResponse)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil || !reports[0].Holds() || reports[0].Read != 35 || left >= 0 {
		t.Errorf("after changes of the leader: %v, %d left, %+v", err, left, reports)
	}
	left, code = 3, kerr.TopicAuthorizationFailed.Code
	if _, err = Run(t.Context(), c.cl, testOptions()); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("without the right to read: %v", err)
	}
	left, code = 1, kerr.OffsetOutOfRange.Code
	if reports, err = Run(t.Context(), c.cl, testOptions()); err != nil || !reports[0].Holds() || left >= 0 {
		t.Errorf("when the beginning is deleted meanwhile, once: %v, %+v", err, reports)
	}
	left, code = 1000, kerr.OffsetOutOfRange.Code
	if _, err = Run(t.Context(), c.cl, testOptions()); err == nil || !strings.Contains(err.Error(), "retention") {
		t.Errorf("when the beginning is deleted meanwhile: %v", err)
	}
}

// TestVerifyStopsBeforeOpenTransactions: where the last thing below the end is
// aborted and what aborted it is above, nothing is ever delivered for the rest.
func TestVerifyStopsBeforeOpenTransactions(t *testing.T) {
	c := newTestCluster(t, 1)
	h := mixed(0)
	c.produce(c.cl, testTopic+".ordered", 0, h.ordered...)
	c.produce(c.cl, testTopic+".late", 0, h.late...)
	c.produce(c.cl, testTopic, 0, h.raw...)
	open, aborted := c.client(kgo.TransactionalID("open")), c.client(kgo.TransactionalID("aborted"))
	for _, cl := range []*kgo.Client{aborted, open} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		c.produce(cl, testTopic+".ordered", 0, &kgo.Record{Value: []byte("never mind")})
	}
	if err := aborted.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	c.commit(0, h.scope)
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil || !reports[0].Holds() || reports[0].Ordered != int64(len(h.ordered)) {
		t.Errorf("%v, %+v", err, reports)
	}
}

// TestVerifyOfRemoteStorage: a leader that has no records yet from its remote storage
// answers with none, which is no hole in the log.
func TestVerifyOfRemoteStorage(t *testing.T) {
	c := newTestCluster(t, 1)
	c.load(mixed(0))
	var remote, asked atomic.Int64
	remote.Store(1)
	source := c.fake.TopicInfo(testTopic).TopicID
	c.fake.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		f := req.(*kmsg.FetchRequest)
		if f.Topics[0].TopicID != source || remote.Load() == 0 {
			return nil, nil, false
		}
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.LastStableOffset = 1000, 1000
		topic := kmsg.NewFetchResponseTopic()
		topic.TopicID, topic.Partitions = source, append(topic.Partitions, part)
		resp := f.ResponseKind().(*kmsg.FetchResponse)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	c.fake.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		if req.(*kmsg.ListOffsetsRequest).Topics[0].Partitions[0].Timestamp != -4 {
			return nil, nil, false
		}
		if asked.Add(1) == 2 {
			remote.Store(0)
		}
		part := kmsg.NewListOffsetsResponseTopicPartition()
		part.Offset = 1000
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic, topic.Partitions = testTopic, append(topic.Partitions, part)
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil || !reports[0].Holds() || reports[0].Read != 35 || reports[0].Expired != 0 || asked.Load() != 2 {
		t.Errorf("%v, %+v, asked %d times", err, reports, asked.Load())
	}
}

// TestVerifyHidden: what stands behind a stranger's open transaction is hidden and not
// lost. What is missing before it is lost.
func TestVerifyHidden(t *testing.T) {
	for _, tt := range []struct {
		name          string
		ordered, late bool // hidden from the middle on
		lost          int  // of ordered, -1: none
		want          Verdict
	}{
		{"ordered", true, false, -1, Unknown},
		{"late", false, true, -1, Unknown},
		{"both", true, true, -1, Unknown},
		{"lost before it", true, false, 3, Broken},
		{"lost behind it", true, false, 20, Unknown},
		{"lost beside it", false, true, 3, Broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newTestCluster(t, 1)
			h := mixed(0)
			c.produce(c.cl, testTopic, 0, h.raw...)
			hidden := int64(0)
			write := func(topic string, log []*kgo.Record, at int, hide bool) {
				c.produce(c.cl, topic, 0, log[:at]...)
				if !hide {
					c.produce(c.cl, topic, 0, log[at:]...)
					return
				}
				hidden += int64(len(log) - at)
				cl := c.client(kgo.TransactionalID("stranger of " + topic))
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				c.produce(cl, topic, 0, &kgo.Record{Value: []byte("never mind")})
				c.produce(c.cl, topic, 0, log[at:]...)
			}
			ordered, out := h.ordered, len(h.ordered)/2
			if tt.lost >= 0 {
				ordered = slices.Delete(slices.Clone(ordered), tt.lost, tt.lost+1)
			}
			write(testTopic+".ordered", ordered, out, tt.ordered)
			write(testTopic+".late", h.late, 1, tt.late)
			c.commit(0, h.scope)
			reports, err := Run(t.Context(), c.cl, testOptions())
			if err != nil {
				t.Fatal(err)
			}
			r := reports[0]
			if tt.want == Broken {
				if f := r.Faults[KindLost]; len(r.Faults) != 1 || f.Total != 1 {
					t.Errorf("%+v", r)
				}
			} else if len(r.Faults) > 0 {
				t.Errorf("%+v", r)
			}
			if tt.lost >= out {
				hidden++ // it might be there
			}
			if !tt.late && r.Unjudged[GapHidden] != hidden || r.Unjudged[GapHidden] < hidden || r.Verdict() != tt.want {
				t.Errorf("want %d hidden, %s: %+v", hidden, tt.want, r)
			}
			late := int64(0)
			for _, n := range r.Late {
				late += n
			}
			if in, out := r.Read, r.Ordered+late+r.Buffered+r.Unjudged[GapHidden]; tt.want != Broken && in != out {
				t.Errorf("%d in, %d out: %+v", in, out, r)
			}
			for _, g := range r.Hidden {
				if len(g.Transactions) != 1 || g.Transactions[0].ID != "stranger of "+g.Topic || g.Transactions[0].From != g.From {
					t.Errorf("%+v", g)
				}
			}
		})
	}
}

// A group that is at work has transactions under way, which hold its offsets for a
// moment.
func TestVerifyWaitsForStableOffsets(t *testing.T) {
	c := newTestCluster(t, 3)
	for p := range int32(3) {
		c.load(mixed(p))
	}
	end := c.hold(1)
	var released atomic.Bool
	time.AfterFunc(100*time.Millisecond, func() {
		released.Store(true)
		end()
	})
	reports, err := Run(t.Context(), c.cl, testOptions())
	if err != nil || len(reports) != 3 || !released.Load() {
		t.Fatalf("%d reports, %v, the offset is released: %v", len(reports), err, released.Load())
	}
	for _, r := range reports {
		if !r.Holds() {
			t.Errorf("%+v", r)
		}
	}
}

// hold has a transaction hold the group's offset of a partition, until end is called.
func (c *testCluster) hold(partition int32) (end func()) {
	c.t.Helper()
	const id = "holder"
	ctx, tx := c.t.Context(), c.client(kgo.TransactionalID(id))
	producer, epoch, err := tx.ProducerID(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, producer, epoch, "group"
	if res, err := add.RequestWith(ctx, tx); err != nil || res.ErrorCode != 0 {
		c.t.Fatal(err, kerr.ErrorForCode(res.ErrorCode))
	}
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.ProducerID, commit.ProducerEpoch, commit.Group = id, producer, epoch, "group"
	at := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	at.Partition, at.Offset = partition, 1
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = testTopic, c.fake.TopicInfo(testTopic).TopicID, append(topic.Partitions, at)
	commit.Topics = append(commit.Topics, topic)
	res, err := commit.RequestWith(ctx, tx)
	if err != nil || res.Topics[0].Partitions[0].ErrorCode != 0 {
		c.t.Fatalf("%v, %+v", err, res)
	}
	return func() {
		abort := kmsg.NewPtrEndTxnRequest()
		abort.TransactionalID, abort.ProducerID, abort.ProducerEpoch = id, producer, epoch
		if res, err := abort.RequestWith(ctx, tx); err != nil || res.ErrorCode != 0 {
			c.t.Errorf("%v, %+v", err, res)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	c := newTestCluster(t, 1)
	_, err := Run(t.Context(), c.cl, testOptions())
	if !errors.Is(err, ErrNoCommit) {
		t.Errorf("without a commit: %v", err)
	}
	c.load(mixed(0))
	o := testOptions()
	o.Topics[0].Fingerprint[0]++
	if _, err = Run(t.Context(), c.cl, o); !errors.Is(err, reorder.ErrFingerprint) {
		t.Errorf("with other event times: %v", err)
	}
	o = testOptions()
	o.Topics[0].Late = "nowhere"
	if _, err = Run(t.Context(), c.cl, o); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a topic that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = Run(ctx, c.cl, testOptions()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// BenchmarkVerify reads a source and its ordered output; its metric counts the
// source records.
func BenchmarkVerify(b *testing.B) {
	n := 200_000
	if s := os.Getenv("TIDEMARK_BENCH_RECORDS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	c := newTestCluster(b, 2)
	value := []byte(strings.Repeat("v", 100))
	for p := range int32(2) {
		raw := make([]*kgo.Record, n/2)
		ordered := make([]*kgo.Record, n/2)
		for i := range raw {
			t := time.UnixMilli(int64(i))
			raw[i] = &kgo.Record{Key: []byte(strconv.Itoa(i)), Value: value, Timestamp: t}
			r := *raw[i]
			r.Headers = []kgo.RecordHeader{header("watermark", i-1), header("source-offset", i)}
			ordered[i] = &r
		}
		c.produce(c.cl, testTopic, p, raw...)
		c.produce(c.cl, testTopic+".ordered", p, ordered...)
		c.commit(p, Scope{Committed: int64(n / 2), Next: int64(n / 2), W: watermark.Max})
	}
	for b.Loop() {
		reports, err := Run(b.Context(), c.cl, testOptions())
		if err != nil || !reports[0].Holds() || !reports[1].Holds() {
			b.Fatal(err, reports)
		}
	}
	runtime.GC()
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
