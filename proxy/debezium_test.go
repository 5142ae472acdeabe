package proxy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
)

const debeziumTimes = "TIDEMARK_EVENT_TIME=json:payload.source.ts_ms,json:source.ts_ms,previous"

// debezium writes what the connector does, with the schema in each record or without.
type debezium struct {
	topic  string
	schema bool
}

// change is a change of a row, or with id 0 of the whole table.
func (d debezium) change(partition int32, id int, op string, at int64) *kgo.Record {
	row := map[string]any{"id": id, "email": fmt.Sprintf("%d@example.org", id)}
	payload := map[string]any{
		"before": nil, "after": nil, "op": op, "ts_ms": at + 350, "transaction": nil,
		"source": map[string]any{
			"version": "3.0.5.Final", "connector": "postgresql", "name": "shop", "ts_ms": at, "snapshot": "false",
			"db": "shop", "schema": "public", "table": "customers", "txId": at % 1000, "lsn": at,
		},
	}
	switch op {
	case "c", "u":
		payload["after"] = row
	case "r":
		payload["after"] = row
		payload["source"].(map[string]any)["snapshot"] = "true"
	case "d":
		payload["before"] = row
	}
	r := &kgo.Record{Topic: d.topic, Partition: partition, Value: d.written(payload, "Envelope"), Timestamp: time.UnixMilli(at + 400)}
	if id != 0 {
		r.Key = d.key(id)
	}
	return r
}

func (d debezium) key(id int) []byte { return d.written(map[string]any{"id": id}, "Key") }

// tombstone follows a delete. Its timestamp is the connector's, which is behind the database.
func (d debezium) tombstone(partition int32, id int, at int64) *kgo.Record {
	return &kgo.Record{Topic: d.topic, Partition: partition, Key: d.key(id), Timestamp: time.UnixMilli(at + 400)}
}

// heartbeat has no source.
func (d debezium) heartbeat(partition int32, at int64) *kgo.Record {
	return &kgo.Record{
		Topic: d.topic, Partition: partition, Key: d.written(map[string]any{"serverName": "shop"}, "ServerNameKey"),
		Value: d.written(map[string]any{"ts_ms": at}, "Heartbeat"), Timestamp: time.UnixMilli(at),
	}
}

func (d debezium) written(payload map[string]any, name string) []byte {
	var all any = payload
	if d.schema {
		all = map[string]any{"payload": payload, "schema": map[string]any{
			"type": "struct", "optional": false, "name": "shop.public.customers." + name, "version": 1,
			"fields": []any{map[string]any{"type": "int64", "optional": false, "field": "ts_ms"}},
		}}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return b
}

// feed makes what comes of a table with twenty rows in a partition: a snapshot, then
// changes that are mixed within the bound, for they are of several databases. Each delete has
// its tombstone behind it, and the row is made anew soon after. cuts are the offsets at which a
// tombstone comes next.
func (d debezium) feed(rnd *rand.Rand, partition int32, base int64, n int) (rs []*kgo.Record, cuts []int) {
	rows := make([]int64, 21) // when each was changed last
	for id := 1; id <= 20; id++ {
		rs = append(rs, d.change(partition, id, "r", base))
		rows[id] = base
	}
	gone := make([]bool, 21)
	for i := range n {
		at := base + int64(i)*10
		id := 1 + rnd.IntN(20)
		early := max(at-rnd.Int64N(300), rows[id]+1)
		rows[id] = early
		switch {
		case gone[id]:
			rs = append(rs, d.change(partition, id, "c", early))
			gone[id] = false
		case rnd.IntN(3) == 0:
			rs = append(rs, d.change(partition, id, "d", early))
			cuts = append(cuts, len(rs))
			rs = append(rs, d.tombstone(partition, id, at))
			gone[id] = true
		case rnd.IntN(40) == 0:
			rs = append(rs, d.heartbeat(partition, at))
		case rnd.IntN(80) == 0:
			rs = append(rs, d.change(partition, 0, "t", at))
		default:
			rs = append(rs, d.change(partition, id, "u", early))
		}
	}
	return rs, cuts
}

// inSequence checks that each row's records come out as they were written, but for their
// order by time: each tombstone right behind its delete, as far as its key goes. It returns
// how many tombstones there were.
func inSequence(t *testing.T, ordered []*kgo.Record) (tombstones int) {
	t.Helper()
	last := map[string]*kgo.Record{}
	for _, r := range ordered {
		key := string(r.Key)
		before := last[key]
		deleted := before != nil && strings.Contains(string(before.Value), `"op":"d"`)
		if r.Value == nil {
			tombstones++
			if !deleted {
				t.Errorf("offset %d: a tombstone that comes behind no delete of its key", r.Offset)
			}
		} else if deleted {
			t.Errorf("offset %d: of its key, this comes between a delete and its tombstone", r.Offset)
		}
		last[key] = r
	}
	return tombstones
}

// What Debezium writes comes out in the order of the database's clock, each tombstone
// behind its delete, wherever the process dies; nothing is late for a tombstone.
func TestKafkaDebezium(t *testing.T) {
	besideOthers(t)
	for _, schema := range []bool{false, true} {
		for _, delivery := range []config.Delivery{config.ExactlyOnce, config.AtLeastOnce} {
			t.Run(fmt.Sprintf("schema=%v %s", schema, delivery), func(t *testing.T) {
				onKafka(t, func(t *testing.T, c *cluster) {
					topic := c.topic(2)
					d := debezium{topic, schema}
					rnd := rand.New(rand.NewPCG(7, 7))
					base := time.Now().Add(-time.Hour).UnixMilli()
					var feeds [2][]*kgo.Record
					var cuts []int
					for p := range feeds {
						feeds[p], cuts = d.feed(rnd, int32(p), base, 400)
					}
					env := []string{
						debeziumTimes, noDrain, "TIDEMARK_DELIVERY=" + string(delivery), "TIDEMARK_COMMIT_INTERVAL=20ms",
						"TIDEMARK_HEADERS=watermark,source-offset,event-time", "TIDEMARK_DEDUP=key",
					}
					s := c.start(topic, env...)
					from, held := [2]int{}, 0
					for i := range 6 { // up to a delete whose tombstone is not there yet, and a crash
						to := cuts[(i+1)*len(cuts)/8]
						for p := range feeds {
							end := min(to, len(feeds[p]))
							c.produce(c.cl, feeds[p][from[p]:end]...)
							from[p] = end
						}
						c.awaitRead(s)
						for _, snap := range c.commits(s.cfg) {
							held += int(snap.Count)
						}
						if s.crash(); i == 3 {
							c.produce(c.cl, feeds[1][from[1]]) // it is there when the next one begins
							from[1]++
						}
						s = c.start(topic, env...)
					}
					for p := range feeds {
						end := base + time.Hour.Milliseconds()/2
						c.produce(c.cl, append(feeds[p][from[p]:], d.change(int32(p), 99, "c", end))...)
					}
					c.awaitRead(s)
					s.stop()
					if held == 0 {
						t.Error("nothing was held at any crash")
					}
					r := c.verify(s.cfg)
					if n := r.Late["invalid-time"] + r.Late["behind-watermark"] + r.Late["duplicate"]; n != 0 || delivery == config.ExactlyOnce && len(r.Late) > 0 {
						t.Errorf("late: %v", r.Late)
					}
					c.judgeDebezium(s.cfg, feeds, r.Unjudged["event-time"])
					if delivery == config.ExactlyOnce {
						c.sameBeside(s, env...)
					}
				})
			})
		}
	}
}

// judgeDebezium checks what came out of feeds. unjudged is how many records verify has not
// found the event time of.
func (c *cluster) judgeDebezium(cfg config.Config, feeds [2][]*kgo.Record, unjudged int64) {
	c.t.Helper()
	var none int64
	for p, ordered := range c.contents(cfg.OrderedTopic(cfg.Topics[0])) {
		if cfg.Delivery == config.AtLeastOnce {
			ordered = firsts(ordered)
		}
		want := 0
		for _, r := range feeds[p] {
			if r.Value == nil {
				want++
			}
			if r.Value == nil || strings.Contains(string(r.Key), "serverName") {
				none++
			}
		}
		if got := inSequence(c.t, ordered); got != want {
			c.t.Errorf("partition %d: %d tombstones of %d", p, got, want)
		}
		if len(ordered) != len(feeds[p]) {
			c.t.Errorf("partition %d: %d of %d came out", p, len(ordered), len(feeds[p]))
		}
	}
	if unjudged < none || cfg.Delivery == config.ExactlyOnce && unjudged != none {
		c.t.Errorf("%d not judged, %d have no time of their own", unjudged, none)
	}
}

// firsts leaves out what comes again, by its source offset.
func firsts(ordered []*kgo.Record) (once []*kgo.Record) {
	seen := map[string]bool{}
	for _, r := range ordered {
		i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "tidemark-source-offset" })
		if offset := string(r.Headers[i].Value); !seen[offset] {
			seen[offset] = true
			once = append(once, r)
		}
	}
	return once
}

// A tombstone that is the last of a partition comes out when all is quiet, though it is held
// at a time above all that was seen, and its delete is out long since.
func TestKafkaDebeziumDrains(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		d := debezium{topic, true}
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, d.tombstone(0, 7, base), d.change(0, 7, "c", base), d.change(0, 7, "d", base+1000))
		s := c.start(topic, debeziumTimes, "TIDEMARK_IDLE_TIMEOUT=1s")
		c.awaitDrained(s)
		for range 2 {
			c.produce(c.cl, d.tombstone(0, 7, base+1000))
			c.awaitDrained(s)
		}
		s.stop()
		r := c.verify(s.cfg)
		ordered := c.contents(s.cfg.OrderedTopic(topic))[0]
		if len(ordered) != 4 || ordered[2].Value != nil || ordered[3].Value != nil {
			t.Fatalf("%d came out", len(ordered))
		}
		if r.Late[reorder.InvalidTime.String()] != 1 || r.Ordered != 4 {
			t.Errorf("late: %v", r.Late)
		}
	})
}
