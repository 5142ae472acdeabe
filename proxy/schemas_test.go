package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/pipeline"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// books is a schema registry that can be away. It is srfake, asked without a network,
// so that time in a bubble passes.
type books struct {
	*srfake.Registry
	asked atomic.Int64
	away  atomic.Bool
	lacks atomic.Uint32 // the id of a schema that it does not have, or has lost
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
	if id := b.lacks.Load(); id != 0 && strings.HasSuffix(req.URL.Path, fmt.Sprintf("/schemas/ids/%d", id)) {
		return &http.Response{StatusCode: 404, Body: io.NopCloser(strings.NewReader(`{"error_code":40403,"message":"Schema not found"}`))}, nil
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
	b.SeedSchema("late-value", 1, unknownID, sr.Schema{Schema: strings.Replace(avroText, "card", "late", 1)})
	on(t, func(t *testing.T, c *cluster) {
		c.books = b
		b.away.Store(false)
		b.lacks.Store(unknownID)
		scenario(t, c, b)
	})
}

// eventTimes returns the reading of event times for verify.
func (c *cluster) eventTimes(cfg config.Config) (read func(*kgo.Record) (watermark.Time, error), done func()) {
	if !cfg.EventTime.NeedsSchemas() {
		return cfg.EventTime.Extract, func() {}
	}
	o, err := cfg.RegistryOptions(func(err error) { c.t.Error(err) })
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
	besideOthers(t)
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
				if got := s.proc.reporter.Snapshot(); got.Record != 1 || got.Sessions != 1 {
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
		c.produce(c.cl, valued(topic, 0, []byte{0, 0, 0, 0, avroID, 9})) // cut off
		s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME=avro:ts")
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read != 61 || r.Ordered != 20 || r.Late["invalid-time"] != 41 || r.Registered != 0 {
			t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
		}
		if got := s.proc.reporter.Snapshot(); got.Record != 41 || got.Broker != 0 || got.Network != 0 {
			t.Errorf("counted %+v", got)
		}
		if text := s.voice.String(); !strings.Contains(text, "no usable event time: schema 77: the schema registry has no such schema") {
			t.Error(text)
		}
		says := map[[2]string]int{}
		for _, r := range c.contents(topic + ".late")[0] {
			says[[2]string{header(r, "tidemark-late-unknown-schema"), header(r, "tidemark-late-schema")}]++
		}
		if want := map[[2]string]int{{"77", "-"}: 20, {"-", "-"}: 20, {"-", "1"}: 1}; !maps.Equal(says, want) {
			t.Errorf("late records say %v, want %v", says, want)
		}
	})
}

// Values that name their schema by a GUID in a header are held and come out in order. Among
// them are values of other registries, more of them than there would be room for in the
// commit: they cost neither a question nor a settled offset, which would have released the
// others early.
func TestValuesOfOtherRegistries(t *testing.T) {
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		registered, has := b.GetSchema("payments-value", 1)
		guid, err := hex.DecodeString(strings.ReplaceAll(registered.GUID, "-", ""))
		if !has || err != nil {
			t.Fatal(has, err)
		}
		topic := c.topic(1)
		base := time.Now().Add(-time.Minute).UnixMilli()
		foreign := [][]byte{
			append([]byte{3, 0}, guid...),
			append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 7}, "x"...),
			make([]byte, 20), []byte(`{"ts":5}`), []byte("Obj\x01"),
			{},
		}
		var all []*kgo.Record
		for i := range int64(200) {
			named := valued(topic, 0, inAvro(avroID, base-100*(i%3)+i, "anna@example.org")[5:])
			named.Headers = []kgo.RecordHeader{{Key: "__value_schema_id", Value: append([]byte{1}, guid...)}}
			all = append(all, named, valued(topic, 0, foreign[i%int64(len(foreign))]))
		}
		c.produce(c.cl, all...)
		s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME=avro:ts", "TIDEMARK_MAX_OUT_OF_ORDERNESS=1m")
		c.awaitDrained(s)
		s.stop()
		if b.asked.Load() != 1 {
			t.Errorf("the registry was asked %d times", b.asked.Load())
		}
		if r := c.verify(s.cfg); r.Read != 400 || r.Ordered != 200 || r.Late["invalid-time"] != 200 || r.Registered != 0 {
			t.Errorf("%d read, %d ordered, late %v", r.Read, r.Ordered, r.Late)
		}
		for _, r := range c.contents(topic + ".late")[0] {
			if header(r, "tidemark-late-unknown-schema") != "-" || header(r, "tidemark-late-schema") != "-" {
				t.Errorf("a late record says something of a schema: %v", r.Headers)
			}
		}
		if text := s.voice.String(); !strings.Contains(text, "is framed for AWS Glue Schema Registry") || strings.Contains(text, "anna") {
			t.Error(text)
		}
	})
}

// The registry is away. Partitions that need it wait, for as long as it takes, with
// all that they hold; the others go on; nothing is invalid because of it, and
// neither a crash nor a stop meanwhile changes that.
func TestRegistryOutage(t *testing.T) {
	besideOthers(t)
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
				away := time.Hour
				if testing.Short() {
					away /= 6
				}
				time.Sleep(away)
				s.lives()
				if n := len(c.contents(topic + ".ordered")[0]); n >= 12 {
					t.Errorf("%d records came out without their schema", n)
				}
				got := s.proc.reporter.Snapshot()
				if lines := s.voice.lines.Load(); got.Record != 0 || got.Sessions != 1 || got.Aborts != 0 || got.Network+got.Broker < int64(away/(7200*time.Millisecond)) || lines > 500 {
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
		b.Intercept(func(http.ResponseWriter, *http.Request) bool { time.Sleep(pipeline.SchemaPatience / 2); return false })
		defer b.ClearInterceptors()
		s := c.start(topic, needsBooks, "TIDEMARK_EVENT_TIME=avro:ts")
		c.awaitDrained(s)
		s.stop()
		if text := s.voice.String(); strings.Contains(text, "suspended") {
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
		if text := s.voice.String(); strings.Contains(text, canary) || !strings.Contains(text, "a partition is suspended until its schema is known") {
			t.Error(text)
		}
	})
}

// What the registry says of a schema that it does not have is not a function of the
// log. It changes its mind while records around it are held, and that changes nothing:
// what was late stays late, in whatever order and however often it is asked.
func TestSchemaRegisteredLate(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
				topic := c.topic(1)
				base := time.Now().Add(-time.Hour).UnixMilli()
				env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts", "TIDEMARK_DELIVERY=" + delivery}
				c.produce(c.cl,
					valued(topic, 0, inAvro(avroID, base, "x")), valued(topic, 0, inAvro(unknownID, base+1, "y")),
					valued(topic, 0, []byte("no id")), valued(topic, 0, inAvro(unknownID, base+2, "y")),
					valued(topic, 0, inAvro(avroID, base+3, "z")), valued(topic, 0, inAvro(unknownID, base+4, "y")))
				s := c.start(topic, env...)
				c.awaitRead(s)
				s.stop()
				if got, want := c.commits(s.cfg)[0].Settled, []reorder.Span{{From: 1, To: 4}, {From: 5, To: 6}}; !slices.Equal(got, want) {
					t.Errorf("settled %v, want %v", got, want)
				}
				s = c.start(topic, env...) // it still has none
				c.awaitRead(s)
				s.crash()
				b.lacks.Store(0)
				s = c.start(topic, env...)
				c.awaitRead(s)
				c.produce(c.cl, valued(topic, 0, inAvro(unknownID, base+5, "y")), valued(topic, 0, inAvro(avroID, base+5000, "end")))
				c.awaitRead(s)
				s.stop()
				r := c.verify(s.cfg)
				if r.Read != 8 || r.Ordered != 3 || r.Late["invalid-time"] != 4 || r.Registered != 3 || r.Buffered != 1 || r.Repeated != 0 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// At least once, nothing may be seen behind a record whose schema was not known before
// that verdict is committed: the registry may have it when the record is read again,
// and the record would come out in order, below a watermark that has been read.
func TestUnknownSchemaIsCommittedFirst(t *testing.T) {
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour).UnixMilli()
		env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts", "TIDEMARK_DELIVERY=at-least-once", "TIDEMARK_COMMIT_INTERVAL=4s"}
		s := c.start(topic, env...)
		c.await("the partition", func() bool { return len(c.commits(s.cfg)) > 0 })
		c.produce(c.cl,
			valued(topic, 0, inAvro(avroID, base, "x")), valued(topic, 0, inAvro(unknownID, base+1, "y")),
			valued(topic, 0, inAvro(avroID, base+60_000, "z")))
		c.await("the first record out", func() bool { return len(c.contents(topic + ".ordered")[0]) > 0 })
		s.crash()
		if late := len(c.contents(topic + ".late")[0]); late != 1 {
			t.Errorf("%d late records have been acknowledged", late)
		}
		b.lacks.Store(0)
		s = c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		r := c.verify(s.cfg)
		if r.Read != 3 || r.Ordered != 1+r.Repeated || r.Late["invalid-time"] != 1 || r.Buffered != 1 {
			t.Errorf("%d read, %d ordered, late %v, %d buffered", r.Read, r.Ordered, r.Late, r.Buffered)
		}
	})
}

// The registry loses a schema by which records were judged that are still held. Their
// partition waits until it is back, whatever becomes of the process meanwhile; the
// other one goes on.
func TestSchemaLost(t *testing.T) {
	withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
		topic := c.topic(2)
		base := time.Now().Add(-time.Hour).UnixMilli()
		env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts"}
		write := func(partition int32, id uint32, at int64) {
			c.produce(c.cl, valued(topic, partition, inAvro(id, base+at, "x")))
		}
		for i := range int64(3) {
			write(0, avroID, 100*i)
			write(0, otherID, 100*i+1)
			write(1, avroID, 100*i)
		}
		s := c.start(topic, env...)
		c.awaitRead(s)
		s.stop()
		b.lacks.Store(otherID)
		s = c.start(topic, env...)
		write(0, avroID, 5000)
		write(1, avroID, 5000)
		c.await("the other partition", func() bool { s.lives(); return len(c.contents(topic + ".ordered")[1]) == 3 })
		time.Sleep(10 * time.Minute)
		s.lives()
		if n := len(c.contents(topic + ".ordered")[0]); n > 0 {
			t.Errorf("%d records came out that nobody can read", n)
		}
		got := s.proc.reporter.Snapshot()
		if got.Record != 0 || got.Sessions != 1 || got.Broker < 10 || got.Broker > 50 {
			t.Errorf("counted %+v", got)
		}
		for _, want := range []string{"a partition is suspended until its schema is known", "topic=" + topic + " partition=0 offset=1 schema=3", "no longer has schema 3", "register it again under its id"} {
			if text := s.voice.String(); !strings.Contains(text, want) {
				t.Errorf("%q is not in:\n%s", want, text)
			}
		}
		s.crash()
		s = c.start(topic, env...)
		time.Sleep(time.Minute)
		b.lacks.Store(0)
		if took := since(func() { c.awaitRead(s) }); took > time.Minute {
			t.Errorf("it took %v to go on", took)
		}
		s.stop()
		if r := c.verify(s.cfg); r.Read != 11 || r.Ordered != 9 || r.Buffered != 2 || len(r.Late) != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// More records with unknown schemas between those that are held than a commit has
// room for: records are released early, and nothing stands still or is lost.
func TestManyUnknownSchemas(t *testing.T) {
	besideOthers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
				topic := c.topic(1)
				base := time.Now().Add(-time.Hour).UnixMilli()
				env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts", "TIDEMARK_MAX_OUT_OF_ORDERNESS=1h", "TIDEMARK_MAX_FUTURE=0", "TIDEMARK_DELIVERY=" + delivery}
				const pairs = 300
				for i := range int64(pairs) {
					c.produce(c.cl, valued(topic, 0, inAvro(avroID, base+i, "x")), valued(topic, 0, inAvro(unknownID, base+i, "y")))
				}
				s := c.start(topic, env...)
				c.awaitRead(s)
				if text := s.voice.String(); !strings.Contains(text, "releasing some early") || !strings.Contains(text, "schema=77") {
					t.Error(text)
				}
				s.stop()
				if settled := len(c.commits(s.cfg)[0].Settled); settled == 0 || settled > reorder.MaxSettled {
					t.Errorf("%d spans", settled)
				}
				b.lacks.Store(0)
				s = c.start(topic, env...)
				c.awaitRead(s)
				s.stop()
				r := c.verify(s.cfg)
				if r.Read != 2*pairs || r.Ordered+r.Buffered != pairs || r.Late["invalid-time"] != pairs || r.Registered != pairs || r.Buffered == 0 || r.Repeated != 0 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// The registry is away while members come and go. Each time whoever has the
// partitions that need it waits with them, and everything else goes on.
func TestRegistryOutageAmongRebalances(t *testing.T) {
	severalMembers(t)
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			withBooks(t, onFake, func(t *testing.T, c *cluster, b *books) {
				topic := c.topic(4)
				base := time.Now().Add(-time.Hour).UnixMilli()
				env := []string{needsBooks, noDrain, "TIDEMARK_EVENT_TIME=avro:ts,header:event-time", "TIDEMARK_DELIVERY=" + delivery}
				write := func(at int64, id uint32, partitions ...int32) {
					for _, n := range partitions {
						c.produce(c.cl, valued(topic, n, inAvro(id, base+at, fmt.Sprint(at))))
					}
				}
				// Partitions 1 and 3 need no schema at all: tombstones.
				bare := func(at int64) {
					for _, n := range []int32{1, 3} {
						r := record(topic, n, base+at, "")
						r.Value = nil
						c.produce(c.cl, r)
					}
				}
				out := func(n int32) int { return len(c.contents(topic + ".ordered")[n]) }
				write(0, avroID, 0, 2)
				write(1, unknownID, 0, 2) // held with it: to be remembered through all this
				bare(0)
				a := c.start(topic, env...)
				c.awaitRead(a)
				b.away.Store(true)
				write(10, otherID, 0, 2)
				write(5000, avroID, 0, 2)
				bare(5000)
				c.await("what needs no schema", func() bool { a.lives(); return out(1) == 1 && out(3) == 1 })

				second := c.start(topic, append(env, instance("b"))...)
				c.await("each to have half", func() bool { return len(c.owned(a)) == 2 && len(c.owned(second)) == 2 })
				bare(10_000)
				c.await("what needs no schema, of both", func() bool { return out(1) == 2 && out(3) == 2 })
				second.stop()
				c.await("a to have all again", func() bool { return len(c.owned(a)) == 4 })
				third := c.start(topic, append(env, instance("c"))...)
				c.await("each to have half again", func() bool { return len(c.owned(a)) == 2 && len(c.owned(third)) == 2 })
				a.crash()
				c.await("c to have all", func() bool { return len(c.owned(third)) == 4 })
				bare(15_000)
				c.await("what needs no schema, of the last", func() bool { third.lives(); return out(1) == 3 && out(3) == 3 })
				if out(0) > 0 || out(2) > 0 {
					t.Errorf("%d and %d records came out without their schemas", out(0), out(2))
				}
				b.lacks.Store(0)
				b.away.Store(false)
				c.awaitRead(third)
				third.stop()
				r := c.verify(third.cfg)
				if r.Read != 16 || r.Ordered-r.Repeated != 10 || r.Late["invalid-time"] != 2 || r.Registered != 2 || r.Buffered != 4 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}
