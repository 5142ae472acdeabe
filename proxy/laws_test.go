package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/position"
)

// writeTwoClocks writes records whose timestamps tell another order, and other times, than
// their headers: from..to by the number of the record.
func (c *cluster) writeTwoClocks(topic string, base time.Time, from, to int) {
	c.t.Helper()
	for i := from; i < to; i++ {
		r := record(topic, 0, base.Add(time.Duration(i^3)*time.Second).UnixMilli(), strconv.Itoa(i))
		r.Timestamp = base.Add(-time.Duration(i) * time.Second)
		c.produce(c.cl, r)
	}
}

// cameOut returns how many records the outputs hold.
func (c *cluster) cameOut(cfg config.Config) (n int64) {
	c.t.Helper()
	topic := cfg.Topics[0]
	for _, name := range []string{cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
		n += int64(len(c.contents(name)[0]))
	}
	return n
}

// Event times come from elsewhere from one epoch on, however it began. What came out before
// is compared with the source and not judged by the event times of now, and what came out
// since is: verify finds a lie there.
func TestKafkaEventTimeChangesWithEpoch(t *testing.T) {
	besideOthers(t)
	const timestamp, header = "TIDEMARK_EVENT_TIME=timestamp", "TIDEMARK_EVENT_TIME=header:event-time"
	const micros = "TIDEMARK_EVENT_TIME=header:event-time:unix-us"
	begins := func(all bool, from position.From) func(*cluster, config.Config) []string {
		return func(c *cluster, cfg config.Config) []string {
			tool := c.positions(cfg)
			plan, err := tool.PlanNewEpoch(c.ctx, position.Which{All: all}, from)
			if err == nil {
				err = tool.Apply(c.ctx, plan)
			}
			if err != nil {
				c.t.Fatal(err)
			}
			return nil
		}
	}
	expired := func(c *cluster, cfg config.Config) []string {
		c.forgotten(cfg)
		return []string{newEpoch}
	}
	byHand := func(c *cluster, cfg config.Config) []string {
		c.commit(cfg, 20, "")
		return []string{newEpoch}
	}
	for _, tt := range []struct {
		name   string
		before []string // of the runs before, one after the other
		held   bool     // by the last of them, when it stops
		begin  func(*cluster, config.Config) []string
		judged int64 // of the outputs of before
	}{
		{"new-epoch", []string{timestamp}, false, begins(true, fromCommitted), 0},
		{"new-epoch, held", []string{timestamp}, true, begins(false, fromCommitted), 0},
		{"new-epoch, another unit", []string{micros}, true, begins(false, fromCommitted), 0},
		{"new-epoch, from earliest", []string{timestamp}, true, begins(true, position.From{Offset: -1}), 0},
		{"new-epoch, from the middle", []string{timestamp}, false, begins(true, position.From{Offset: 13}), 0},
		{"new-epoch after expiry", []string{timestamp}, false, func(c *cluster, cfg config.Config) []string {
			c.forgotten(cfg)
			return begins(true, position.From{Offset: 7})(c, cfg)
		}, 0},
		{"ON_RESET, expired", []string{timestamp}, false, expired, 0},
		{"ON_RESET, set by hand", []string{timestamp}, false, byHand, 0},
		{"the same event times", []string{header}, false, begins(true, position.From{Offset: 0}), 40},
		{"the same event times, held", []string{header}, true, begins(true, fromCommitted), 40},
		{"changed in the epoch before", []string{timestamp, header}, false, begins(true, fromCommitted), 40},
		{"changed in the epoch before, and back beyond that", []string{timestamp, header}, false, begins(true, position.From{Offset: 10}), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				base := time.Now().Add(-time.Hour).Truncate(time.Second)
				n, out := 0, int64(0)
				var s *sidecar
				for i, eventTime := range tt.before {
					c.writeTwoClocks(topic, base, n, n+40)
					n += 40
					env := []string{eventTime, "TIDEMARK_MAX_OUT_OF_ORDERNESS=10s"}
					if tt.held && i == len(tt.before)-1 {
						env = append(env, noDrain)
					}
					s = c.start(topic, env...)
					c.awaitRead(s)
					if s.cfg.IdleTimeout > 0 {
						c.awaitDrained(s)
					}
					s.stop()
				}
				out = c.cameOut(s.cfg)
				c.await("the group to be empty", func() bool { return c.members(s.cfg) == 0 })
				now := c.config(topic, header)
				env := append(tt.begin(c, now), header)
				if got := c.commits(now); len(got) == 1 && got[0].Epoch == 1 { // as it stands before anything is read
					if r := c.verify(now); !r.Holds() {
						t.Errorf("begun: %+v", r)
					}
				}
				c.writeTwoClocks(topic, base, n, n+40)
				n += 40
				s = c.start(topic, env...)
				c.awaitRead(s)
				s.crash()
				s = c.start(topic, header)
				c.awaitDrained(s)
				s.stop()
				r := c.verify(s.cfg)
				judged := min(tt.judged, out)
				if r.Unjudged[verify.GapOtherTimes] != out-judged || !r.Holds() {
					t.Errorf("%d came out before, %d are to be judged: %+v", out, judged, r)
				}
				c.lie(s.cfg, base.Add(time.Duration(n+100)*time.Second))
				if r := c.finds(s.cfg); r.Faults[verify.KindWatermarkLie].Total != 1 {
					t.Errorf("with a lie: %+v", r)
				}
			})
		})
	}
}

// lie puts a source record into the ordered topic with a watermark that is not true of it.
func (c *cluster) lie(cfg config.Config, at time.Time) {
	c.t.Helper()
	topic := cfg.Topics[0]
	ends, err := c.adm.ListEndOffsets(c.ctx, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	r := record(topic, 0, at.UnixMilli(), "lie")
	r.Timestamp = at.Truncate(time.Millisecond)
	c.produce(c.cl, r)
	copied := *r
	copied.Topic = cfg.OrderedTopic(topic)
	copied.Headers = append(copied.Headers,
		kgo.RecordHeader{Key: "tidemark-watermark", Value: fmt.Append(nil, at.UnixMilli()-2000)},
		kgo.RecordHeader{Key: "tidemark-source-offset", Value: fmt.Append(nil, end.Offset)})
	if snap := c.commits(cfg)[0]; snap.Epoch > 0 {
		copied.Headers = append(copied.Headers, kgo.RecordHeader{Key: "tidemark-epoch", Value: fmt.Append(nil, snap.Epoch)})
	}
	c.produce(c.cl, &copied)
}

// A position that is made again says by which event times, from where on those are known to
// be those of the outputs, and is refused where the outputs show others and something is held.
func TestKafkaRebuildAfterEventTimeChanges(t *testing.T) {
	besideOthers(t)
	const timestamp, header = "TIDEMARK_EVENT_TIME=timestamp", "TIDEMARK_EVENT_TIME=header:event-time"
	const micros, fallback = "TIDEMARK_EVENT_TIME=header:event-time:unix-us", "TIDEMARK_EVENT_TIME=header:event-time,timestamp"
	for _, tt := range []struct {
		name   string
		before []string // of the runs before, one after the other, 40 records each
		held   bool     // by the last of them, when it stops
		lost   bool     // the offsets
		now    string
		note   string // "": refused
		judged int64  // of the outputs of before
	}{
		{"as before", []string{header}, true, false, header, "what comes out next is what would have come out", 40},
		{"as before, lost", []string{header}, true, true, header, "which nothing that came out contradicts; what comes out next is", 40},
		{"another unit", []string{micros}, true, false, header, "", 0},
		{"another unit, lost", []string{micros}, true, true, header, "", 0},
		{"another unit, the other way", []string{header}, true, true, micros, "", 0},
		{"another source, lost", []string{timestamp}, true, true, header, "", 0},
		{"another source, nothing is held, lost", []string{timestamp}, false, true, header, "below 40 had other event times", 0},
		{"nothing that counts", []string{header}, true, false, fallback, "was written with another TIDEMARK_EVENT_TIME", 0},
		{"changed before", []string{timestamp, header}, true, false, header, "", 40},
		{"changed before, lost", []string{timestamp, header}, true, true, header, "had other event times; everything else", 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				base := time.Now().Add(-time.Hour).Truncate(time.Second)
				bound := "TIDEMARK_MAX_OUT_OF_ORDERNESS=10s"
				n := 0
				var s *sidecar
				for i, eventTime := range tt.before {
					c.writeTwoClocks(topic, base, n, n+40)
					n += 40
					env := []string{eventTime, bound}
					if tt.held && i == len(tt.before)-1 {
						env = append(env, noDrain)
						if eventTime == micros {
							env[1] = "TIDEMARK_MAX_OUT_OF_ORDERNESS=10ms"
						}
					}
					s = c.start(topic, env...)
					c.awaitRead(s)
					if s.cfg.IdleTimeout > 0 {
						c.awaitDrained(s)
					}
					s.stop()
				}
				now := c.config(topic, tt.now)
				out := c.cameOut(now)
				c.await("the group to be empty", func() bool { return c.members(now) == 0 })
				was := c.commits(s.cfg)[0]
				if tt.held != (was.Count > 0) || out == 0 {
					t.Fatalf("%d came out, and it holds %d", out, was.Count)
				}
				if tt.lost {
					c.forgotten(now)
				}
				tool := c.positions(now)
				plan, err := tool.PlanRebuild(c.ctx, position.Which{All: true}, -1)
				if tt.note == "" && len(tt.before) == 1 {
					f, ok := errors.AsType[*fault.Fault](err)
					if !ok || f.Code != 2 || !errors.Is(err, position.ErrNotKnown) || !strings.Contains(f.Advice, hintNewEpoch) {
						t.Fatalf("rebuilt: %v", err)
					}
					return
				}
				if err == nil {
					err = tool.Apply(c.ctx, plan)
				}
				if err != nil {
					t.Fatal(err)
				}
				if note := plan.Steps[0].Note; !strings.Contains(note, tt.note) {
					t.Errorf("the plan says %q", note)
				}
				made := plan.Steps[0].Snapshot
				if tt.held != (made.Count > 0) {
					t.Errorf("%d are held, were %d", made.Count, was.Count)
				}
				if r := c.verify(now); !r.Holds() {
					t.Errorf("rebuilt: %+v", r)
				}
				c.writeTwoClocks(topic, base, n, n+40)
				n += 40
				s = c.start(topic, tt.now, bound)
				c.awaitDrained(s)
				s.stop()
				r := c.verify(now)
				judged := int64(0)
				if tt.judged > 0 {
					judged = out - 40*int64(len(tt.before)-1)
				}
				unjudged := r.Unjudged[verify.GapOtherTimes]
				if tt.judged == 0 && tt.held {
					unjudged -= int64(made.Count) // they were read before
				}
				if unjudged != out-judged {
					t.Errorf("%d came out before, %d are to be judged: %+v", out, judged, r)
				}
				c.lie(now, base.Add(time.Duration(n+100)*time.Second))
				if r := c.finds(now); r.Faults[verify.KindWatermarkLie].Total != 1 {
					t.Errorf("with a lie: %+v", r)
				}
			})
		})
	}
}
