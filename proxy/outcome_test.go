package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
)

// commits returns what the group of a sidecar has committed, decoded; nothing
// while a partition has no commit.
func (c *cluster) commits(cfg config.Config) []reorder.Snapshot {
	c.t.Helper()
	topic := cfg.Topics[0]
	all, err := c.adm.FetchOffsets(kadm.RequireStable(c.ctx), cfg.Group)
	if err != nil {
		return nil
	}
	var snaps []reorder.Snapshot
	for n := range int32(len(all[topic])) {
		o, ok := all[topic][n]
		if !ok || o.Err != nil || o.At < 0 || o.Metadata == "" {
			return nil
		}
		s, err := reorder.Decode(o.Metadata, o.At, o.LeaderEpoch, c.scope(cfg, n))
		if err != nil {
			c.t.Fatalf("metadata of %s partition %d at %d: %v: %s", topic, n, o.At, err, o.Metadata)
		}
		if len(o.Metadata) > 1024 {
			c.t.Errorf("%d bytes of metadata", len(o.Metadata))
		}
		snaps = append(snaps, s)
	}
	return snaps
}

func (c *cluster) scope(cfg config.Config, partition int32) reorder.Scope {
	c.t.Helper()
	topic := cfg.Topics[0]
	listed, err := c.adm.ListTopics(c.ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return reorder.Scope{
		Group: cfg.Group, TopicID: listed[topic].ID, Partition: partition, Fingerprint: cfg.EventTime.Fingerprint(),
	}
}

// read reports whether the group has read the topic to its end; drained also
// that nothing is buffered any more.
func (c *cluster) read(cfg config.Config) bool { return c.done(cfg, false) }

func (c *cluster) drained(cfg config.Config) bool { return c.done(cfg, true) }

func (c *cluster) done(cfg config.Config, drained bool) bool {
	ends, err := c.adm.ListEndOffsets(c.ctx, cfg.Topics[0])
	if err != nil || ends.Error() != nil {
		return false
	}
	snaps := c.commits(cfg)
	if len(snaps) < len(ends[cfg.Topics[0]]) {
		return false
	}
	for n, s := range snaps {
		if end, _ := ends.Lookup(cfg.Topics[0], int32(n)); s.Next != end.Offset || s.Releasing || drained && s.Count > 0 {
			return false
		}
	}
	return true
}

// awaitRead and awaitDrained wait for that, and end if a sidecar fails.
func (c *cluster) awaitRead(s *sidecar) {
	c.t.Helper()
	c.await("the end of "+s.cfg.Topics[0], func() bool { s.lives(); return c.read(s.cfg) })
}

func (c *cluster) awaitDrained(s *sidecar) {
	c.t.Helper()
	c.await("all of "+s.cfg.Topics[0]+" put out", func() bool { s.lives(); return c.drained(s.cfg) })
}

// lives fails the test if the sidecar has ended by itself.
func (s *sidecar) lives() {
	s.c.t.Helper()
	if !s.running() {
		s.c.t.Fatalf("the sidecar has ended: %v", s.err)
	}
}

// verify checks the contract and returns the sums over the partitions.
func (c *cluster) verify(cfg config.Config) verify.Report {
	c.t.Helper()
	return c.verifyFrom(cfg, verify.From{})
}

// everyEpoch has the event times of all epochs judged, as of those before a reset nothing
// says how they were made.
var everyEpoch = verify.From{Told: true}

func (c *cluster) verifyFrom(cfg config.Config, from verify.From) verify.Report {
	c.t.Helper()
	r := c.findings(cfg, from)
	for kind, f := range r.Faults {
		c.t.Errorf("%d %s: %+v", f.Total, kind, f.First)
	}
	return r
}

// finds is what verify.Run finds, as sums over the partitions.
func (c *cluster) finds(cfg config.Config) verify.Report {
	c.t.Helper()
	return c.findings(cfg, verify.From{})
}

func (c *cluster) findings(cfg config.Config, from verify.From) verify.Report {
	c.t.Helper()
	topic := cfg.Topics[0]
	eventTime, done := c.eventTimes(cfg)
	defer done()
	eventTime = verify.UnknownWhere(eventTime, timestamp.ErrPrevious)
	var schemaID func(*kgo.Record) (string, bool)
	if cfg.EventTime.NeedsSchemas() {
		schemaID = func(r *kgo.Record) (string, bool) {
			id, ok := cfg.EventTime.SchemaOf(r)
			return id.String(), ok
		}
	}
	reports, err := verify.Run(c.ctx, c.cl, verify.Options{
		Topics: []verify.Topic{{
			Source: topic, Ordered: cfg.OrderedTopic(topic), Late: cfg.LateTopic(topic),
			EventTime: eventTime, SchemaID: schemaID, Fingerprint: cfg.EventTime.Fingerprint(),
		}},
		Group: cfg.Group, Prefix: cfg.HeaderPrefix, Required: cfg.OutputHeaders(), AtLeastOnce: cfg.Delivery == config.AtLeastOnce,
		Identity: cfg.Dedup.Identity, Dropped: cfg.Duplicates == config.DropDuplicates, Unnamed: !cfg.Headers.SourceOffset, From: from,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	var sum verify.Report
	for _, r := range reports {
		sum.Add(r)
	}
	sum.Times = reports[0].Times
	return sum
}

// holds checks the contract, and that a workload came out whole: so and so
// many records read, late for the reasons that were put into it, the rest in
// order or, where nothing drains, still buffered.
func (c *cluster) holds(cfg config.Config, w *workload) verify.Report {
	c.t.Helper()
	r := c.verify(cfg)
	c.whole(r, w)
	return r
}

// whole checks what a report says of a workload. What came again, at least once, may have
// been late.
func (c *cluster) whole(r verify.Report, w *workload) {
	c.t.Helper()
	if w.unjudged {
		w.late = r.Late["behind-watermark"]
	}
	if w.drains {
		w.late = max(w.late, r.Late["behind-watermark"])
	}
	want := map[string]int64{"behind-watermark": w.late, "future": w.future, "invalid-time": w.invalid}
	var late int64
	for why, n := range r.Late {
		late += n
		if n < want[why] || n > want[why]+r.Repeated {
			c.t.Errorf("%d records are late as %s, want %d", n, why, want[why])
		}
	}
	if sum := w.late + w.future + w.invalid; late < sum || late > sum+r.Repeated {
		c.t.Errorf("%d records are late, want %d", late, sum)
	}
	if r.Read != int64(w.records) || r.Ordered+late+r.Buffered-r.Repeated != r.Read {
		c.t.Errorf("%d read, %d ordered, %d late, %d buffered, %d repeated; %d were written",
			r.Read, r.Ordered, late, r.Buffered, r.Repeated, w.records)
	}
}

// contents returns the committed records of a topic, partition by partition. Real brokers
// mark the end of a transaction a moment after they have answered; that is waited for,
// unless a transaction stays open.
func (c *cluster) contents(topic string) [][]*kgo.Record {
	c.t.Helper()
	for began := time.Now(); c.fake == nil && !c.settled(topic) && time.Since(began) < 3*time.Second; {
		time.Sleep(50 * time.Millisecond)
	}
	var all [][]*kgo.Record
	n := c.each(topic, kgo.ReadCommitted(), func(r *kgo.Record) {
		for len(all) <= int(r.Partition) {
			all = append(all, nil)
		}
		if !r.Attrs.IsControl() {
			all[r.Partition] = append(all[r.Partition], r)
		}
	})
	return append(all, make([][]*kgo.Record, n-len(all))...)
}

// each hands over all records of a topic, markers among them, and returns the number
// of its partitions.
func (c *cluster) each(topic string, level kgo.IsolationLevel, do func(*kgo.Record)) (partitions int) {
	c.t.Helper()
	list := c.adm.ListEndOffsets
	if level == kgo.ReadCommitted() {
		list = c.adm.ListCommittedOffsets
	}
	ends, err := list(c.ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	starts, err := c.adm.ListStartOffsets(c.ctx, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	at := map[int32]kgo.Offset{}
	for n, end := range ends[topic] {
		if start, _ := starts.Lookup(topic, n); end.Offset > start.Offset {
			at[n] = kgo.NewOffset().At(start.Offset)
		}
	}
	left := len(at)
	if left == 0 {
		return len(ends[topic])
	}
	cl := c.client(kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}))
	defer cl.Close()
	for left > 0 {
		cl.PollFetches(c.ctx).EachRecord(func(r *kgo.Record) {
			do(r)
			if end, _ := ends.Lookup(topic, r.Partition); r.Offset == end.Offset-1 {
				left--
			}
		})
	}
	return len(ends[topic])
}

// settled reports whether readers of committed records see all of a topic. Brokers
// mark the end of a transaction on one partition after the other.
func (c *cluster) settled(topic string) bool {
	behind, ok := c.unsettled(topic)
	return ok && len(behind) == 0
}

// unsettled returns the partitions of a topic whose end readers of committed
// records do not see, if the brokers tell.
func (c *cluster) unsettled(topic string) (behind []int32, ok bool) {
	high, err := c.adm.ListEndOffsets(c.ctx, topic)
	if err != nil || high.Error() != nil {
		return nil, false
	}
	stable, err := c.adm.ListCommittedOffsets(c.ctx, topic)
	if err != nil || stable.Error() != nil {
		return nil, false
	}
	high.Each(func(end kadm.ListedOffset) {
		if at, _ := stable.Lookup(topic, end.Partition); at.Offset < end.Offset {
			behind = append(behind, end.Partition)
		}
	})
	return behind, true
}

// bytesOf writes down the outputs of a sidecar, all of it but the one value
// that is the wall clock's.
func (c *cluster) bytesOf(cfg config.Config) []string {
	c.t.Helper()
	var lines []string
	topic, kinds := cfg.Topics[0], [...]string{".ordered", ".late"}
	for i, output := range []string{cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
		for n, records := range c.contents(output) {
			for _, r := range records {
				lines = append(lines, fmt.Sprintf("%s/%d %s", kinds[i], n, written(r)))
			}
		}
	}
	return lines
}

func written(r *kgo.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s", r.Timestamp.UnixMilli(), shown(r.Key), shown(r.Value))
	for _, h := range r.Headers {
		value := h.Value
		if strings.HasSuffix(h.Key, "late-at") {
			value = []byte("now")
		}
		fmt.Fprintf(&b, " %q=%s", h.Key, shown(value))
	}
	return b.String()
}

// shown tells nothing from an empty value.
func shown(b []byte) string {
	if b == nil {
		return "nil"
	}
	return strconv.Quote(string(b))
}

// same checks that two runs put out the same bytes and stand at the same
// state.
func (c *cluster) same(got, want config.Config) {
	c.t.Helper()
	c.sameOutputs(got, want)
	c.sameState(got, want, func(*reorder.Snapshot) {})
}

// sameOutputs compares the outputs, byte for byte.
func (c *cluster) sameOutputs(got, want config.Config) {
	c.t.Helper()
	for _, cfg := range []config.Config{got, want} {
		for _, out := range []string{cfg.OrderedTopic(cfg.Topics[0]), cfg.LateTopic(cfg.Topics[0])} {
			c.await("the last transaction on "+out, func() bool { return c.settled(out) })
		}
	}
	g, w := c.bytesOf(got), c.bytesOf(want)
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			c.t.Errorf("output %d differs:\n got %.300s\nwant %.300s", i, g[i], w[i])
			break
		}
	}
	if len(g) != len(w) {
		c.t.Errorf("%d outputs, want %d", len(g), len(w))
	}
}

// sameState compares what is committed, but for what forget takes away.
func (c *cluster) sameState(got, want config.Config, forget func(*reorder.Snapshot)) {
	c.t.Helper()
	gs, ws := c.commits(got), c.commits(want)
	if !slices.EqualFunc(gs, ws, func(a, b reorder.Snapshot) bool {
		a.Steps, b.Steps = nil, nil // they hold the wall clock
		forget(&a)
		forget(&b)
		return fmt.Sprint(a) == fmt.Sprint(b)
	}) {
		c.t.Errorf("committed state differs:\n got %+v\nwant %+v", gs, ws)
	}
}

// header returns the last header of a name, as text; "-" if there is none.
func header(r *kgo.Record, name string) string {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value)
		}
	}
	return "-"
}

// since is the real or fake time that f takes.
func since(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}
