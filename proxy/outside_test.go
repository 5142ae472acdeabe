package proxy

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/emit/verify"
)

// produceBatch writes records in one batch, with timestamps that the client would turn.
func (c *cluster) produceBatch(topic string, timestamps []int64, records []*kgo.Record) {
	c.t.Helper()
	batch := kmsg.RecordBatch{
		Magic: 2, LastOffsetDelta: int32(len(records) - 1), NumRecords: int32(len(records)), FirstTimestamp: timestamps[0],
		MaxTimestamp: math.MinInt64, PartitionLeaderEpoch: -1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
	}
	for i, in := range records {
		batch.MaxTimestamp = max(batch.MaxTimestamp, timestamps[i])
		r := kmsg.Record{TimestampDelta64: timestamps[i] - timestamps[0], OffsetDelta: int32(i), Key: in.Key, Value: in.Value}
		for _, h := range in.Headers {
			r.Headers = append(r.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		body := r.AppendTo(nil)[1:] // without the length, which is 0 here
		batch.Records = append(binary.AppendVarint(batch.Records, int64(len(body))), body...)
	}
	const beforeLength, beforeSum, sum = 12, 21, 17
	batch.Length = int32(len(batch.AppendTo(nil)) - beforeLength)
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[sum:], crc32.Checksum(raw[beforeSum:], crc32.MakeTable(crc32.Castagnoli)))
	meta, err := c.adm.ListTopics(c.ctx, topic)
	if err != nil {
		c.t.Fatal(err)
	}
	part := kmsg.NewProduceRequestTopicPartition()
	part.Records = raw
	to := kmsg.NewProduceRequestTopic()
	to.Topic, to.TopicID, to.Partitions = topic, meta[topic].ID, append(to.Partitions, part)
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 5000, append(req.Topics, to)
	resp, err := c.cl.Broker(int(meta[topic].Partitions[0].Leader)).RetriableRequest(c.ctx, req)
	if err != nil {
		c.t.Fatal(err)
	}
	if p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 {
		c.t.Fatalf("produce: %v, %v", kerr.ErrorForCode(p.ErrorCode), p.ErrorRecords)
	}
}

// A timestamp outside 1678..2262 cannot be written by the client, and another is never put
// out in its place: the record is of invalid time, whatever its event time is, and its
// timestamp stands in a header.
func TestKafkaTimestampsOutside(t *testing.T) {
	besideOthers(t)
	const any = "=9223372036854775807"
	const micros, year9999, nanos = 1_796_043_758_084_000, 253_402_300_799_000, 1_796_043_758_084_000_000
	for name, eventTime := range map[string]string{"header": "header:event-time", "timestamp": "timestamp"} {
		t.Run(name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				now := time.Now().Add(-time.Hour).UnixMilli()
				topic := c.topic(1, "message.timestamp.before.max.ms"+any, "message.timestamp.after.max.ms"+any)
				s := c.start(topic, noDrain, "TIDEMARK_EVENT_TIME="+eventTime)
				stamps := []int64{now, micros, now + 1, nanos, year9999, now + 2, -micros, now + 3}
				var records []*kgo.Record
				for i := range stamps {
					records = append(records, record(topic, 0, now+int64(i), strconv.Itoa(i)))
				}
				c.produceBatch(topic, stamps, records)
				c.awaitRead(s)
				s.stop()
				s = c.start(topic, noDrain, "TIDEMARK_EVENT_TIME="+eventTime)
				c.produce(c.cl, &kgo.Record{Topic: topic, Timestamp: time.UnixMilli(now + 3000), Headers: record(topic, 0, now+3000, "").Headers})
				c.awaitRead(s)
				s.stop()
				if r := c.verify(s.cfg); r.Read != 9 || r.Ordered != 4 || r.Late["invalid-time"] != 4 || r.Buffered != 1 {
					t.Errorf("%+v", r)
				}
				var late []string
				for _, r := range c.contents(s.cfg.LateTopic(topic))[0] {
					for _, h := range r.Headers {
						if h.Key == "tidemark-late-timestamp" {
							late = append(late, fmt.Sprint(string(r.Value), " ", r.Timestamp.UnixMilli(), " ", string(h.Value)))
						}
					}
				}
				want := []string{
					"1 -1 1796043758084000", fmt.Sprint("3 -1 ", int64(nanos-6<<58)), "4 -1 253402300799000", "6 -1 -1796043758084000",
				}
				if strings.Join(late, "\n") != strings.Join(want, "\n") {
					t.Errorf("late:\n%s", strings.Join(late, "\n"))
				}
			})
		})
	}
}

// Of timestamps that differ by a multiple of 2^58 ms the client makes the same, so a sidecar
// takes some for good that are not. verify reads what the brokers have.
func TestKafkaTimestampLooksGood(t *testing.T) {
	const any = "=9223372036854775807"
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1, "message.timestamp.before.max.ms"+any, "message.timestamp.after.max.ms"+any)
		s := c.start(topic, noDrain)
		now := time.Now().Add(-time.Hour).UnixMilli()
		c.produceBatch(topic, []int64{now, now + 1<<58, now}, []*kgo.Record{
			record(topic, 0, now, "0"), record(topic, 0, now+1, "1"), record(topic, 0, now+100, "2"),
		})
		c.awaitRead(s)
		s.stop()
		if r := c.verify(s.cfg); r.Buffered != 3 {
			t.Errorf("held: %+v", r)
		}
		s = c.start(topic, noDrain)
		c.produce(c.cl, record(topic, 0, now+5000, "3"))
		c.awaitRead(s)
		s.stop()
		r := c.finds(s.cfg)
		f := r.Faults[verify.KindChanged]
		if len(r.Faults) != 1 || f.Total != 1 || f.First[0].SourceOffset != 1 {
			t.Errorf("%+v", r)
		}
	})
}
