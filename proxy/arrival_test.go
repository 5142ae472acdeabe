package proxy

import (
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
)

// stamping returns how to set the timestamp type of a topic. kfake goes by what a
// batch says, which our producers cannot say, so there it is put into the batches.
func (c *cluster) stamping(topic string) (set func(arrival bool)) {
	var arrival atomic.Bool
	if c.fake != nil {
		listed, err := c.adm.ListTopics(c.ctx, topic)
		if err != nil {
			c.t.Fatal(err)
		}
		id := listed[topic].ID
		c.fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			for _, t := range req.(*kmsg.ProduceRequest).Topics {
				for _, p := range t.Partitions {
					if arrival.Load() && (t.Topic == topic || t.TopicID == id) {
						stampArrival(p.Records)
					}
				}
			}
			return nil, nil, false
		})
	}
	return func(on bool) {
		arrival.Store(on)
		if on {
			c.set(topic, fault.TimestampType, fault.LogAppendTime)
		} else {
			c.set(topic, fault.TimestampType, "CreateTime")
		}
	}
}

// stampArrival makes the timestamps of a batch those of its arrival. kfake does that
// too, for a batch that says so, but leaves the checksum as it was.
func stampArrival(batch []byte) {
	const crc, attributes, first, last = 17, 21, 27, 35
	batch[attributes+1] |= 8
	now := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(batch[first:], now)
	binary.BigEndian.PutUint64(batch[last:], now)
	binary.BigEndian.PutUint32(batch[crc:], crc32.Checksum(batch[attributes:], crc32.MakeTable(crc32.Castagnoli)))
}

func stamped(topic string, at time.Time, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Value: []byte(value), Timestamp: at}
}

// A topic's timestamps become times of arrival while it is read, and there are no
// other event times: refused, as it would be at the start. Once that is mended, what
// was written meanwhile is of invalid time, and stays so when it is read again.
func TestKafkaTimestampTypeChanges(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		set := c.stamping(topic)
		base := time.Now().Add(-time.Hour).Truncate(time.Second)
		env := []string{noDrain, "TIDEMARK_EVENT_TIME=timestamp"}
		for i := range 10 {
			c.produce(c.cl, stamped(topic, base.Add(time.Duration(i)*time.Second), strconv.Itoa(i)))
		}
		s := c.start(topic, env...)
		c.awaitRead(s)
		set(true)
		c.produce(c.cl, stamped(topic, base.Add(8*time.Second), "arrived"))
		if fault := s.fails(); fault.Code != 2 || !strings.Contains(fault.Error(), "they are arrival times") || !strings.Contains(fault.Hint(), "CreateTime") {
			t.Errorf("exit code %d, %v, hint: %s", fault.Code, fault, fault.Hint())
		}
		c.produce(c.cl, stamped(topic, base.Add(9*time.Second), "arrived too"))
		set(false)
		for i := range 10 {
			c.produce(c.cl, stamped(topic, base.Add(time.Duration(10+i)*time.Second), strconv.Itoa(10+i)))
		}
		for range 3 {
			s = c.start(topic, env...)
			c.awaitRead(s)
			s.stop()
		}
		r := c.verify(s.cfg)
		if r.Read != 22 || r.Late["invalid-time"] != 2 || len(r.Late) != 1 || r.Ordered != 19 || r.Buffered != 1 {
			t.Errorf("%+v", r)
		}
		if text := s.voice.String(); strings.Contains(text, "is the time of its arrival") {
			t.Errorf("judged again: %s", text)
		}
	})
}

// Behind another source they are what the configuration asks for, and told of.
func TestKafkaTimestampTypeChangesBehindHeader(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(2)
		set := c.stamping(topic)
		now := time.Now().Truncate(time.Second)
		s := c.start(topic, noDrain, "TIDEMARK_EVENT_TIME=header:event-time,timestamp")
		c.produce(c.cl, record(topic, 0, now.Add(-time.Minute).UnixMilli(), "a"))
		c.awaitRead(s)
		if text := s.voice.String(); strings.Contains(text, preflight.ArrivalWarning) {
			t.Error(text)
		}
		set(true)
		for n := range int32(2) {
			c.produce(c.cl, record(topic, n, now.Add(-50*time.Second).UnixMilli(), "b"), valued(topic, n, []byte("c")))
		}
		c.awaitRead(s)
		s.stop()
		if text := s.voice.String(); strings.Count(text, preflight.ArrivalWarning) != 1 {
			t.Error(text)
		}
		if r := c.verify(s.cfg); r.Read != 5 || len(r.Late) != 0 || r.Ordered != 3 || r.Buffered != 2 {
			t.Errorf("%+v", r)
		}
	})
}
