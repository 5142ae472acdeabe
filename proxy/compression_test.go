package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Outputs are compressed as their source is, unless told otherwise. (In a bubble
// the collector may not close what decompresses zstd.)
func TestKafkaCompression(t *testing.T) {
	besideOthers(t)
	for _, test := range []struct {
		name   string
		source kgo.CompressionCodec
		env    string
		want   kgo.CompressionCodecType
	}{
		{"none", kgo.NoCompression(), "", kgo.CodecNone},
		{"snappy", kgo.SnappyCompression(), "", kgo.CodecSnappy},
		{"gzip", kgo.GzipCompression(), "", kgo.CodecGzip},
		{"lz4", kgo.Lz4Compression(), "", kgo.CodecLz4},
		{"lz4 to none", kgo.Lz4Compression(), "TIDEMARK_COMPRESSION=none", kgo.CodecNone},
		{"none to gzip", kgo.NoCompression(), "TIDEMARK_COMPRESSION=gzip", kgo.CodecGzip},
	} {
		t.Run(test.name, func(t *testing.T) {
			onKafka(t, func(t *testing.T, c *cluster) {
				topic := c.topic(1)
				cl := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(test.source))
				defer cl.Close()
				base := time.Now().Add(-time.Hour)
				c.produce(cl, timed(topic, base, 0, bytes.Repeat([]byte("x"), 5000)), timed(topic, base, -9, bytes.Repeat([]byte("y"), 5000)), timed(topic, base, 1, nil))
				env := []string{noDrain}
				if test.env != "" {
					env = append(env, test.env)
				}
				s := c.start(topic, env...)
				c.awaitRead(s)
				s.stop()
				c.verify(s.cfg)
				for _, out := range []string{topic + ".ordered", topic + ".late"} {
					c.await("the last transaction", func() bool { return c.settled(out) })
					if got := c.contents(out)[0][0].Attrs.CompressionType(); got != uint8(test.want) {
						t.Errorf("%s has codec %d, want %d", out, got, test.want)
					}
				}
			})
		})
	}
}
