package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/position"
	"github.com/tidemarkhq/tidemark/reorder"
)

const (
	hintRebuild  = "`tidemark position rebuild`"
	hintNewEpoch = "`tidemark position new-epoch"
)

// Whatever has become of the offsets of a group: the hint says to rebuild the position, and
// from there everything goes on as if nothing had happened.
func TestKafkaEveryHintToRebuildLeadsOut(t *testing.T) {
	besideOthers(t)
	for name, breaks := range map[string]func(c *cluster, cfg config.Config, at int64, text string){
		"set by hand, forward":  func(c *cluster, cfg config.Config, at int64, _ string) { c.commit(cfg, at+100, "") },
		"set by hand, back":     func(c *cluster, cfg config.Config, _ int64, _ string) { c.commit(cfg, 10, "") },
		"expired":               func(c *cluster, cfg config.Config, _ int64, _ string) { c.forgotten(cfg) },
		"of another program":    func(c *cluster, cfg config.Config, at int64, _ string) { c.commit(cfg, at, "hello") },
		"shifted with metadata": func(c *cluster, cfg config.Config, at int64, text string) { c.commit(cfg, at+1, text) },
		"damaged": func(c *cluster, cfg config.Config, at int64, text string) {
			c.commit(cfg, at, strings.Replace(text, ";o=0", ";o=1", 1))
		},
		"newer": func(c *cluster, cfg config.Config, at int64, text string) {
			c.commit(cfg, at, "v3"+strings.TrimPrefix(text, "v1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				cfg, w := c.ranOnce(noDrain)
				topic := cfg.Topics[0]
				at, text := c.committed(cfg)
				breaks(c, cfg, at, text)
				c.refused(topic, hintRebuild, noDrain)
				c.rebuilt(cfg, -1)
				if got, again := c.committed(cfg); got != at || !strings.Contains(again, ";o=0;") {
					t.Errorf("the position is %d %s, was %d %s", got, again, at, text)
				}
				s := c.start(topic, noDrain)
				c.awaitRead(s)
				s.stop()
				c.holds(s.cfg, w)
				c.sameAsUnbroken(s, noDrain)
			})
		})
	}
}

// A topic that was created again is gone on with in a new epoch.
func TestKafkaRecreatedLeadsOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce()
		topic := cfg.Topics[0]
		c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
		c.recreate(topic)
		c.produce(c.cl, record(topic, 0, w.base.UnixMilli(), "first"))
		c.refused(topic, "position ") // brokers have deleted the offsets with the topic
		if _, err := c.positions(cfg).PlanRebuild(c.ctx, position.Which{}, -1); !errors.Is(err, position.ErrNotKnown) {
			t.Errorf("rebuilt from the outputs of another topic: %v", err)
		}
		c.newEpoch(cfg, position.From{Offset: -1}) // earliest
		s := c.start(topic)
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(cfg); r.Read != 2 {
			t.Errorf("%d read", r.Read)
		}
	})
}

// Nothing may have come out in order of the earlier topic: the late records say that this is
// not theirs.
func TestKafkaRecreatedWithLateRecordsAlone(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		put := func(value string) {
			c.produce(c.cl, withTime(record(topic, 0, 0, value), "never"))
		}
		put("old")
		s := c.start(topic, noDrain)
		c.awaitRead(s)
		s.stop()
		c.await("the group to be empty", func() bool { return c.members(s.cfg) == 0 })
		c.forgotten(s.cfg)
		c.rebuilt(s.cfg, -1)
		c.recreate(topic)
		put("new")
		put("and another")
		c.forgotten(s.cfg)
		if _, err := c.positions(s.cfg).PlanRebuild(c.ctx, position.Which{}, -1); !errors.Is(err, position.ErrNotKnown) {
			t.Errorf("rebuilt from the outputs of another topic: %v", err)
		}
	})
}

// newEpoch begins one, of the partitions that cannot be taken up.
func (c *cluster) newEpoch(cfg config.Config, from position.From) *position.Plan {
	c.t.Helper()
	t := c.positions(cfg)
	plan, err := t.PlanNewEpoch(c.ctx, position.Which{}, from)
	if err == nil {
		err = t.Apply(c.ctx, plan)
	}
	if err != nil {
		c.t.Fatalf("begin a new epoch: %v", err)
	}
	return plan
}

var fromCommitted = position.From{Offset: -1, Committed: true}

// Event times in the wrong unit, on a topic that never rests: records are held that would
// come out in months. What is held is judged anew, in a new epoch, and everything that was
// owed comes out once.
func TestKafkaWrongUnitLeadsOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		for i := range int64(50) {
			c.produce(c.cl, record(topic, 0, base+100*i, fmt.Sprint(i)))
		}
		wrong := []string{"TIDEMARK_EVENT_TIME=header:event-time:unix-us", "TIDEMARK_MAX_OUT_OF_ORDERNESS=500ms", noDrain}
		s := c.start(topic, wrong...)
		c.awaitRead(s)
		s.stop()
		if held := c.commits(s.cfg)[0]; held.Count != 50 {
			t.Fatalf("%d records are held", held.Count)
		}
		c.produce(c.cl, record(topic, 0, base+5000, "live"))
		c.refused(topic, hintNewEpoch)
		s = c.start(topic, wrong...) // going back to what was wrong is no way out: it never rests
		c.awaitRead(s)
		s.stop()
		right := c.config(topic)
		plan := c.newEpoch(right, fromCommitted)
		if n := plan.Steps[0]; n.Commit.Offset != 0 || n.Snapshot.Epoch != 1 || !strings.Contains(n.Note, "the 51 records that are held are judged anew") {
			t.Errorf("%+v", n)
		}
		s = c.start(topic)
		c.produce(c.cl, record(topic, 0, base+6000, "later"))
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(right); r.Read != 52 || r.Ordered != 52 {
			t.Errorf("%d read, %d ordered", r.Read, r.Ordered)
		}
	})
}

// A tool that mirrors clusters translates offsets, and leaves the metadata. The outputs that
// it has mirrored name offsets of the other cluster, which rebuild notices.
func TestKafkaMirroredGroupLeadsOut(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce(noDrain)
		source := cfg.Topics[0]
		at, _ := c.committed(cfg)
		mirror := c.topic(1)
		c.produce(c.cl, record(mirror, 0, 1, "an offset of difference"))
		for suffix, topic := range map[string]string{"": source, ".ordered": cfg.OrderedTopic(source), ".late": cfg.LateTopic(source)} {
			if suffix != "" {
				c.create(mirror+suffix, 1)
			}
			for _, r := range c.contents(topic)[0] {
				c.produce(c.cl, &kgo.Record{Topic: mirror + suffix, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
			}
		}
		there := c.config(mirror, noDrain)
		translated := kadm.Offsets{}
		translated.Add(kadm.Offset{Topic: mirror, At: at + 1, LeaderEpoch: -1})
		if err := c.adm.CommitAllOffsets(c.ctx, there.Group, translated); err != nil {
			t.Fatal(err)
		}
		c.refused(mirror, hintRebuild, noDrain)
		_, err := c.positions(there).PlanRebuild(c.ctx, position.Which{}, -1)
		if f, ok := errors.AsType[*fault.Fault](err); !ok || !errors.Is(err, position.ErrNotKnown) || !strings.Contains(f.Advice, hintNewEpoch) {
			t.Fatalf("rebuilt from mirrored outputs: %v", err)
		}
		c.newEpoch(there, fromCommitted)
		s := c.start(mirror)
		c.awaitDrained(s)
		s.stop()
		ends, _ := c.adm.ListEndOffsets(c.ctx, mirror)
		end, _ := ends.Lookup(mirror, 0)
		seen := map[string]bool{}
		for _, topic := range []string{mirror + ".ordered", mirror + ".late"} {
			for _, r := range c.contents(topic)[0] {
				if header(r, "tidemark-epoch") == "1" {
					seen[header(r, "tidemark-source-offset")] = true
				}
			}
		}
		if want := end.Offset - (at + 1); int64(len(seen)) != want {
			t.Errorf("%d records came out in the new epoch, want %d", len(seen), want)
		}
	})
}

// An export is written back where and as it was taken, and nowhere else.
func TestKafkaRestore(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		tool := c.positions(cfg)
		file, err := tool.Export(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(file)
		if file, err = position.ReadFile(bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		refused := func(what, why string, f position.File, in config.Config) {
			t.Helper()
			_, err := c.positions(in).PlanRestore(c.ctx, f)
			if fault, ok := errors.AsType[*fault.Fault](err); !ok || fault.Code != 2 || !strings.Contains(err.Error()+fault.Advice, why) {
				t.Errorf("%s: %v", what, err)
			}
		}
		changed := func(change func(*position.File)) position.File {
			f := file
			f.Partitions = append([]position.FilePlace(nil), file.Partitions...)
			change(&f)
			return f
		}
		refused("another group", "is of group", file, c.config(topic, "TIDEMARK_GROUP=other"))
		refused("another cluster", "is of cluster", changed(func(f *position.File) { f.Cluster = "elsewhere" }), cfg)
		refused("another offset", "damaged", changed(func(f *position.File) { f.Partitions[0].Offset++ }), cfg)
		refused("no such partition", "no such partition", changed(func(f *position.File) { f.Partitions[0].Partition = 7 }), cfg)
		refused("twice", "twice", changed(func(f *position.File) { f.Partitions = append(f.Partitions, f.Partitions[0]) }), cfg)
		refused("other event times", "set the TIDEMARK_EVENT_TIME that it was written with", file, c.config(topic, noDrain, "TIDEMARK_EVENT_TIME=timestamp"))

		c.commit(cfg, 10, "")
		plan, err := tool.PlanRestore(c.ctx, file)
		if err == nil {
			err = tool.Apply(c.ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := c.start(topic, noDrain)
		c.awaitRead(s)
		s.crash()
		s = c.start(topic, noDrain)
		c.produce(c.cl, record(topic, 0, w.base.Add(time.Minute).UnixMilli(), "more"))
		c.awaitRead(s)
		s.stop()
		c.sameBeside(s, noDrain)
		c.verify(s.cfg)
		refused("what came out since", hintRebuild[1:len(hintRebuild)-1], file, cfg)
	})
}

// afterAnswer calls do when the answer number at has come, of those about offsets.
type afterAnswer struct {
	n  atomic.Int64 // brokers answer beside each other
	at int64
	do func()
}

func (a *afterAnswer) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key != kmsg.OffsetFetch.Int16() && key != kmsg.ListOffsets.Int16() {
		return
	}
	if a.n.Add(1) == a.at {
		a.do()
	}
}

// An export is taken while brokers have yet to end the last transaction in an output. What is
// restored is not taken for older than that.
func TestExportWaitsForTransactions(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		c.produce(c.cl, record(topic, 0, time.Now().Add(-time.Hour).UnixMilli(), "0"))
		s := c.start(topic, noDrain)
		c.awaitRead(s)
		s.stop()
		cl := c.client(kgo.TransactionalID("ends late"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer cl.Close()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		c.produce(cl, record(topic+".late", 0, 0, "late"))
		c.writers.Go(func() {
			time.Sleep(time.Second)
			c.wrote(cl.EndTransaction(c.ctx, kgo.TryCommit))
		})
		file, err := c.positions(s.cfg).Export(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if end := file.Partitions[0].LateEnd; end != 2 { // the record and the marker
			t.Errorf("the late topic ends at %d", end)
		}
	})
}

// An export is taken beside a sidecar at work, which puts something out and commits between any
// two questions, and stops. What came out then does not come out again by a restore.
func TestExportBesideSidecar(t *testing.T) {
	for at := int64(1); at < 10; at++ {
		onFake(t, func(t *testing.T, c *cluster) {
			topic := c.topic(1)
			base := time.Now().Add(-time.Hour).UnixMilli()
			put := func(n int) { c.produce(c.cl, record(topic, 0, base+int64(n)*60_000, fmt.Sprint(n))) }
			s := c.start(topic, noDrain)
			put(0)
			put(1)
			c.awaitRead(s)
			stopped := false
			stop := func() {
				if !stopped {
					stopped = true
					s.stop()
				}
			}
			tool := c.positions(s.cfg)
			tool.Client = c.client(kgo.WithHooks(&afterAnswer{at: at, do: func() {
				put(2)
				c.awaitRead(s)
				stop()
			}}))
			defer tool.Client.Close()
			if err := tool.Open(c.ctx); err != nil {
				t.Fatal(err)
			}
			file, err := tool.Export(c.ctx)
			if err != nil {
				t.Fatal(err)
			}
			stop()
			c.await("the group to be empty", func() bool { return c.members(s.cfg) == 0 })
			if _, text := c.committed(s.cfg); file.Partitions[0].Metadata != text {
				if _, err := c.positions(s.cfg).PlanRestore(c.ctx, file); err == nil {
					t.Errorf("after answer %d: %s would be restored, and more has come out by %s", at, file.Partitions[0].Metadata, text)
				}
			}
		})
	}
}

// While there are members, nothing is planned, and what was planned before is not carried
// out; the brokers see to it, too.
func TestPositionOfLiveGroup(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		tool := c.positions(cfg)
		all := position.Which{All: true}
		plan, err := tool.PlanRebuild(c.ctx, all, -1)
		if err != nil {
			t.Fatal(err)
		}
		s := c.start(topic, noDrain)
		c.await("it to join", func() bool { return c.members(cfg) > 0 })
		at, text := c.committed(cfg)
		live := func(what string, err error) {
			t.Helper()
			if fault, ok := errors.AsType[*fault.Fault](err); !ok || fault.Code != 2 {
				t.Errorf("%s beside a live member: %v", what, err)
			}
		}
		live("apply", tool.Apply(c.ctx, plan))
		_, err = tool.PlanRebuild(c.ctx, all, -1)
		live("rebuild", err)
		_, err = tool.PlanNewEpoch(c.ctx, all, fromCommitted)
		live("new-epoch", err)
		for _, key := range []kmsg.Key{kmsg.DescribeGroups, kmsg.ConsumerGroupDescribe} { // what is asked before shows nobody
			c.fake.ControlKey(key.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
				c.fake.KeepControl()
				resp := r.ResponseKind()
				if resp, ok := resp.(*kmsg.DescribeGroupsResponse); ok {
					g := kmsg.NewDescribeGroupsResponseGroup()
					g.Group = cfg.Group
					resp.Groups = append(resp.Groups, g)
				}
				return resp, nil, true
			})
		}
		plan.Steps[0].Snapshot.Epoch = 9
		live("a commit", tool.Apply(c.ctx, plan))
		if now, again := c.committed(cfg); now != at || again != text {
			t.Errorf("committed: %d %s", now, again)
		}
		s.stop()
	})
}

// What was planned is not carried out once the outputs have changed, though nobody is in the
// group any more.
func TestKafkaStalePlan(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		tool := c.positions(cfg)
		plan, err := tool.PlanRebuild(c.ctx, position.Which{All: true}, -1)
		if err != nil {
			t.Fatal(err)
		}
		s := c.start(topic, noDrain)
		c.produce(c.cl, record(topic, 0, w.base.Add(time.Hour).UnixMilli(), "more"))
		c.awaitRead(s)
		s.stop()
		c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
		if err := tool.Apply(c.ctx, plan); err == nil || !strings.Contains(err.Error(), "have changed") {
			t.Errorf("applied: %v", err)
		}
		c.verify(cfg)
	})
}

// Where outputs do not say enough, nothing is guessed.
func TestKafkaRebuildRefuses(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, _ := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		refused := func(what, why string, cfg config.Config, origin int64) {
			t.Helper()
			_, err := c.positions(cfg).PlanRebuild(c.ctx, position.Which{All: true}, origin)
			if fault, ok := errors.AsType[*fault.Fault](err); !ok || fault.Code != 2 || !strings.Contains(err.Error(), why) || !strings.Contains(fault.Advice, hintNewEpoch) {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused("at least once", "at-least-once", c.config(topic, noDrain, "TIDEMARK_DELIVERY=at-least-once"), -1)
		refused("without source-offset", "source-offset", c.config(topic, noDrain, "TIDEMARK_HEADERS=watermark"), -1)
		refused("with another prefix", "does not say which source record", c.config(topic, noDrain, "TIDEMARK_HEADER_PREFIX=x-"), -1)
		at, text := c.committed(cfg)
		c.commit(cfg, at, "") // else the commit says where it began
		refused("START=latest", "--origin", c.config(topic, noDrain, "TIDEMARK_START=latest"), -1)
		c.commit(cfg, at, text)
		late := c.config(topic, noDrain, "TIDEMARK_ORDERED_SUFFIX=.empty")
		c.create(topic+".empty", 1)
		refused("without .ordered", "in neither output", late, -1)
		scope := c.scope(cfg, 0)
		snap, err := reorder.Decode(text, at, -1, scope)
		if err != nil {
			t.Fatal(err)
		}
		scope.TopicID[0]++
		c.commit(cfg, at, snap.Encode(scope))
		refused("of an earlier topic", "earlier topic", cfg, -1)
		c.commit(cfg, at, text)
		if _, err := c.adm.DeleteRecords(c.ctx, deletedUpTo(cfg.OrderedTopic(topic), 1<<40, c)); err != nil {
			t.Fatal(err)
		}
		refused("emptied", "retention has taken", cfg, -1)
	})
}

// deletedUpTo deletes the records of partition 0 below an offset, or all that there are.
func deletedUpTo(topic string, below int64, c *cluster) kadm.Offsets {
	ends, err := c.adm.ListEndOffsets(c.ctx, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: topic, At: min(below, end.Offset)})
	return os
}

// What retention has taken of the outputs had come out, and of the source too: the rest says
// enough.
func TestKafkaRebuildAfterRetention(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce(noDrain)
		topic := cfg.Topics[0]
		at, text := c.committed(cfg)
		for _, name := range []string{cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
			half := int64(len(c.contents(name)[0]) / 2)
			if _, err := c.adm.DeleteRecords(c.ctx, deletedUpTo(name, half, c)); err != nil {
				t.Fatal(err)
			}
		}
		c.forgotten(cfg)
		c.rebuilt(cfg, -1)
		if got, again := c.committed(cfg); got != at {
			t.Errorf("the position is %d %s, was %d %s", got, again, at, text)
		}
		if _, err := c.adm.DeleteRecords(c.ctx, deletedUpTo(topic, at-200, c)); err != nil {
			t.Fatal(err)
		}
		c.forgotten(cfg)
		c.rebuilt(cfg, -1)
		s := c.start(topic, noDrain)
		c.produce(c.cl, record(topic, 0, w.base.Add(time.Minute).UnixMilli(), "end"))
		c.awaitRead(s)
		s.stop()
		c.verify(s.cfg)
	})
}

// A group that did not write the outputs gets no position there while the one that did is at
// work.
func TestKafkaPositionBesideAnotherGroup(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		w := workload{seed: 3, records: 5000, plain: true, step: 10 * time.Millisecond, pause: 100 * time.Millisecond}
		written := c.writing(topic, &w)
		s := c.start(topic, noDrain, "TIDEMARK_COMMIT_INTERVAL=200ms")
		tool := c.positions(c.config(topic, "TIDEMARK_GROUP=mistyped"))
		for name, plan := range map[string]func() (*position.Plan, error){
			"rebuild": func() (*position.Plan, error) { return tool.PlanRebuild(c.ctx, position.Which{}, -1) },
			"new-epoch": func() (*position.Plan, error) {
				return tool.PlanNewEpoch(c.ctx, position.Which{}, position.From{Offset: 0})
			},
		} {
			c.await(name+" to be refused", func() bool { // kfake tells of producers only while they have something open
				_, err := plan()
				f, ok := errors.AsType[*fault.Fault](err)
				return ok && f.Code == 2 && strings.Contains(f.Advice, "TIDEMARK_GROUP="+s.cfg.Group)
			})
		}
		<-written
		s.stop()
	})
}

// A first run with the wrong event time, started over in the same outputs as
// docs/starting-over.md says, through a crash: the new epoch has every record once, in order
// of the right one.
func TestKafkaStartingOver(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		cfg, w := c.ranOnce("TIDEMARK_EVENT_TIME=timestamp")
		topic := cfg.Topics[0]
		right := c.config(topic)
		tool := c.positions(right)
		c.await("the group to be empty", func() bool { return c.members(cfg) == 0 })
		plan, err := tool.PlanNewEpoch(c.ctx, position.Which{All: true}, position.From{Offset: -1})
		if err == nil {
			err = tool.Apply(c.ctx, plan)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := c.start(topic)
		c.await("the new epoch", func() bool {
			snaps := c.commits(right) // none while a commit is under way
			return len(snaps) > 0 && snaps[0].Next > 0
		})
		s.crash()
		s = c.start(topic)
		c.awaitDrained(s)
		s.stop()
		var out []*kgo.Record
		for _, r := range c.contents(right.OrderedTopic(topic))[0] {
			if header(r, "tidemark-epoch") == "1" {
				out = append(out, r)
			}
		}
		late := 0
		for _, r := range c.contents(right.LateTopic(topic))[0] {
			if header(r, "tidemark-epoch") == "1" {
				late++
			}
		}
		if len(out)+late != w.records {
			t.Errorf("%d records came out in order and %d late, want %d", len(out), late, w.records)
		}
		for i := 1; i < len(out); i++ {
			if header(out[i], "event-time") < header(out[i-1], "event-time") {
				t.Fatalf("record %d of the new epoch is behind the one before", i)
			}
		}
	})
}
