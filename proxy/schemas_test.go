package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/watermark"
)

// books is a schema registry that can be away. It is srfake, asked without a network,
// so that time in a bubble passes.
type books struct {
	*srfake.Registry
	asked atomic.Int64
	away  atomic.Bool
}

var errAway = errors.New("connection refused")

func (b *books) RoundTrip(req *http.Request) (*http.Response, error) {
	b.asked.Add(1)
	if b.away.Load() {
		if b.asked.Load()%2 == 0 {
			return &http.Response{StatusCode: 503, Body: io.NopCloser(strings.NewReader("busy"))}, nil
		}
		return nil, errAway
	}
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, req)
	return w.Result(), nil
}

const (
	avroText  = `{"type":"record","name":"Payment","fields":[{"name":"card","type":"string"},{"name":"ts","type":["null",{"type":"long","logicalType":"timestamp-millis"}]}]}`
	protoText = `syntax = "proto3"; import "google/protobuf/timestamp.proto"; message Other {} message Payment { string card = 1; google.protobuf.Timestamp ts = 2; }`

	avroID, protoID, otherID, unknownID = 1, 2, 3, 77
)

const needsBooks = "TIDEMARK_SCHEMA_REGISTRY=http://books"

// withBooks runs a scenario with a registry that has the schemas above.
func withBooks(t *testing.T, on func(*testing.T, func(*testing.T, *cluster)), scenario func(*testing.T, *cluster, *books)) {
	b := &books{Registry: srfake.New()} // it listens, so it is outside
	defer b.Close()
	b.SeedSchema("payments-value", 1, avroID, sr.Schema{Schema: avroText})
	b.SeedSchema("proto-value", 1, protoID, sr.Schema{Type: sr.TypeProtobuf, Schema: protoText})
	b.SeedSchema("other-value", 1, otherID, sr.Schema{Schema: strings.Replace(avroText, "card", "sku", 1)})
	on(t, func(t *testing.T, c *cluster) {
		c.books = b
		b.away.Store(false)
		scenario(t, c, b)
	})
}

// eventTimes returns the reading of event times for verify.
func (c *cluster) eventTimes(cfg config.Config) (read func(*kgo.Record) (watermark.Time, error), done func()) {
	if !cfg.EventTime.NeedsSchemas() {
		return cfg.EventTime.Extract, func() {}
	}
	o, err := cfg.RegistryOptions()
	if err != nil {
		c.t.Fatal(err)
	}
	o.Transport, o.Trouble = c.books, func(error) {}
	r, err := registry.New(o)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.EventTimes(c.ctx, cfg.EventTime, time.Minute, func(err error) { c.t.Error(err) }), r.Close
}

func inJSON(ms int64, name string) []byte {
	return fmt.Appendf(nil, `{"card":%q,"meta":{"ts":%d}}`, name, ms)
}

func inAvro(id uint32, ms int64, name string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, id)
	b = append(binary.AppendVarint(b, int64(len(name))), name...)
	return binary.AppendVarint(append(b, 2), ms)
}

func inProtobuf(ms int64, name string) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{0}, protoID), 2, 2) // [1], the second message
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), name)
	stamp := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(ms/1000))
	stamp = protowire.AppendVarint(protowire.AppendTag(stamp, 2, protowire.VarintType), uint64(ms%1000*1e6))
	return protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), stamp)
}

// valued returns a record that has its event time in its value alone.
func valued(topic string, partition int32, value []byte) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Value: value}
}

// Event times in values of each family: what is in order comes out in order, and
// what cannot be read goes to the late topic, with the reason and the offset in the
// log.
func TestKafkaEventTimesInValues(t *testing.T) {
	for family, tt := range map[string]struct {
		source  string
		value   func(ms int64, name string) []byte
		invalid []byte
	}{
		"json":     {"json:meta.ts", inJSON, []byte(`{"meta":{"ts":"soon"}}`)},
		"avro":     {"avro:ts", func(ms int64, name string) []byte { return inAvro(avroID, ms, name) }, []byte{0, 0, 0, 0, avroID, 9}},
		"protobuf": {"protobuf:ts", inProtobuf, []byte{0, 0, 0, 0, protoID, 2, 2, 2<<3 | 2, 9}},
	} {
		t.Run(family, func(t *testing.T) {
			withBooks(t, onKafka, func(t *testing.T, c *cluster, b *books) {
				topic := c.topic(2)
				base := time.Now().Add(-time.Hour).UnixMilli()
				rnd := rand.New(rand.NewPCG(1, 2))
				var all []*kgo.Record
				for i := range 1000 {
					ms := base + int64(10*i) - rnd.Int64N(400)
					all = append(all, valued(topic, int32(i%2), tt.value(ms, fmt.Sprint(i))))
				}
				all[500].Value = tt.invalid
				all[700].Value, all[700].Headers = nil, record("", 0, base+7000, "").Headers // a tombstone: the next source
				c.produce(c.cl, all...)
				s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME="+tt.source+",header:event-time")
				c.awaitDrained(s)
				s.stop()
				r := c.verify(s.cfg)
				if r.Read != 1000 || r.Ordered != 999 || r.Late["invalid-time"] != 1 {
					t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
				}
				if got := s.proc.alarm.snapshot(); got.Record != 1 || got.Sessions != 1 {
					t.Errorf("counted %+v", got)
				}
				if most := int64(6); b.asked.Load() > most {
					t.Errorf("asked %d times", b.asked.Load())
				}
			})
		})
	}
}

// The registry knows nothing of a schema: that is a verdict, told with its id.
func TestUnknownSchema(t *testing.T) {
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		for i := range int64(20) {
			c.produce(c.cl, valued(topic, 0, inAvro(avroID, base+i, "x")), valued(topic, 0, inAvro(unknownID, base+i, "x")), valued(topic, 0, []byte("no id")))
		}
		s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME=avro:ts")
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 60 || r.Ordered != 20 || r.Late["invalid-time"] != 40 {
			t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
		}
		if got := s.proc.alarm.snapshot(); got.Record != 40 || got.Broker != 0 || got.Network != 0 {
			t.Errorf("counted %+v", got)
		}
		if text := s.voice.String(); !strings.Contains(text, "partition 0 offset 1: no usable event time: schema 77: the schema registry has no such schema") {
			t.Error(text)
		}
	})
}

// The registry is away. Partitions that need it wait, for as long as it takes, with
// all that they hold; the others go on; nothing is invalid because of it, and
// neither a crash nor a stop meanwhile changes that.
func TestRegistryOutage(t *testing.T) {
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
				topic := c.topic(3)
				base := time.Now().Add(-time.Hour).UnixMilli()
				env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts,header:event-time", "TIDEMARK_DELIVERY=" + delivery}
				write := func(partition int32, id uint32, at int64) {
					c.produce(c.cl, valued(topic, partition, inAvro(id, base+at, fmt.Sprint(at))))
				}
				tombstone := func(at int64) {
					r := record(topic, 2, base+at, "")
					r.Value = nil
					c.produce(c.cl, r)
				}
				for i := range int64(10) {
					write(0, avroID, 100*i)
					write(1, avroID, 100*i)
					tombstone(100 * i)
				}
				s := c.start(topic, env...)
				c.awaitRead(s)
				b.away.Store(true)
				write(0, avroID, 950) // known
				write(0, otherID, 920)
				write(0, avroID, 5000)
				write(1, avroID, 5000)
				tombstone(5000)
				c.await("what needs nothing new", func() bool {
					s.lives()
					out := c.contents(topic + ".ordered")
					return len(out[1]) == 10 && len(out[2]) == 10
				})
				time.Sleep(time.Hour)
				s.lives()
				if n := len(c.contents(topic + ".ordered")[0]); n >= 12 {
					t.Errorf("%d records came out without their schema", n)
				}
				got := s.proc.alarm.snapshot()
				if lines := s.voice.lines.Load(); got.Record != 0 || got.Sessions != 1 || got.Aborts != 0 || got.Network+got.Broker < 500 || lines > 500 {
					t.Errorf("%d lines, counted %+v", lines, got)
				}
				tombstone(6000) // the others are read all the while
				c.await("the other partition", func() bool {
					s.lives()
					snaps := c.commits(s.cfg) // none where an offset is not stable
					return len(snaps) == 3 && snaps[2].Next == 12
				})
				if took := since(s.stop); took > time.Second {
					t.Errorf("it took %v to stop", took)
				}
				// Now what it held needs the registry too.
				s = c.start(topic, env...)
				time.Sleep(time.Minute)
				s.lives()
				s.crash()
				s = c.start(topic, env...)
				time.Sleep(10 * time.Second)
				b.away.Store(false)
				if took := since(func() { c.awaitRead(s) }); took > 10*time.Second {
					t.Errorf("it took %v to go on", took)
				}
				s.stop()
				r := c.verify(s.cfg)
				if r.Read != 36 || r.Ordered-r.Repeated != 33 || len(r.Late) != 0 || r.Buffered != 3 {
					t.Errorf("%d read, %d ordered, %d buffered, late %v", r.Read, r.Ordered, r.Buffered, r.Late)
				}
			})
		})
	}
}

// A registry that is slow, but not for long, is waited for: nothing is set aside.
func TestSlowRegistry(t *testing.T) {
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		c.produce(c.cl, valued(topic, 0, inAvro(avroID, base, "x")))
		b.Intercept(func(http.ResponseWriter, *http.Request) bool { time.Sleep(schemaPatience / 2); return false })
		defer b.ClearInterceptors()
		s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME=avro:ts")
		c.awaitDrained(s)
		s.stop()
		if text := s.voice.String(); strings.Contains(text, "waits") {
			t.Error(text)
		}
	})
}

// The schema registry's secrets are in no line of the log, whatever it answers.
func TestRegistrySecretIsNeverLogged(t *testing.T) {
	const canary = "hunter2-the-canary"
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		topic := c.topic(1)
		c.produce(c.cl, valued(topic, 0, inAvro(avroID, time.Now().UnixMilli(), "x")))
		b.away.Store(true)
		s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME=avro:ts", "TIDEMARK_SCHEMA_REGISTRY_USERNAME=u", "TIDEMARK_SCHEMA_REGISTRY_PASSWORD="+canary)
		time.Sleep(time.Minute)
		s.stop()
		if text := s.voice.String(); strings.Contains(text, canary) || !strings.Contains(text, "a partition waits for the schema registry") {
			t.Error(text)
		}
	})
}

// What the registry says of a schema that it does not have is not a function of the
// log. If it changes its mind while records around it are held, a restart does not
// find what the commit says, and stops rather than put out a record twice.
func TestSchemaRegisteredLate(t *testing.T) {
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts"}
		c.produce(c.cl, valued(topic, 0, inAvro(avroID, base, "x")), valued(topic, 0, inAvro(unknownID, base+1, "y")))
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		s = c.start(topic, env...) // it still has none: all is as it was
		c.awaitRead(s)
		s.stop()
		b.SeedSchema("late-value", 1, unknownID, sr.Schema{Schema: strings.Replace(avroText, "card", "late", 1)})
		if fault := c.start(topic, env...).fails(); fault.Code != 1 || !strings.Contains(fault.Hint(), "have schemas been registered or deleted since?") {
			t.Errorf("exit code %d, %v, hint: %s", fault.Code, fault, fault.Hint())
		}
	})
}
