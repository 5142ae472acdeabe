package scan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestTimestamps: records have the timestamps of their batches, whatever the client makes
// of them.
func TestTimestamps(t *testing.T) {
	const now = 1_796_043_758_084
	first := []int64{now, now * 1000, now + 1, now * 1_000_000}
	second := []int64{-1, now + 1<<58, math.MaxInt64, -now * 1000}
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		for _, from := range []int64{10, 12, 14, 17} {
			batches := slices.Concat(batch(t, codec, 10, false, first...), batch(t, codec, 14, false, second...))
			unzipped := &keeping{kgo.DefaultDecompressor(), map[*byte][]byte{}}
			part := &kmsg.FetchResponseTopicPartition{RecordBatches: batches, HighWatermark: 18, LastStableOffset: 18}
			got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: from}, part, unzipped, nil)
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			correctTimestamps(got.Records, batches, unzipped)
			var ms []int64
			for _, r := range got.Records {
				ms = append(ms, r.Timestamp.UnixMilli())
			}
			if want := append(first, second...)[from-10:]; !slices.Equal(ms, want) {
				t.Errorf("%v from %d: %v, want %v", codec, from, ms, want)
			}
		}
	}
}

// A topic with LogAppendTime has the broker's clock, which stands in the batch.
func TestTimestampsOfArrival(t *testing.T) {
	batches := slices.Concat(batch(t, kgo.NoCompression(), 0, true, 5, 7), batch(t, kgo.NoCompression(), 2, false, 1<<50))
	part := &kmsg.FetchResponseTopicPartition{RecordBatches: batches, HighWatermark: 3, LastStableOffset: 3}
	got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{}, part, kgo.DefaultDecompressor(), nil)
	correctTimestamps(got.Records, batches, &keeping{})
	var ms []int64
	for _, r := range got.Records {
		ms = append(ms, r.Timestamp.UnixMilli())
	}
	if !slices.Equal(ms, []int64{7, 7, 1 << 50}) {
		t.Errorf("%v", ms)
	}
}

func batch(t *testing.T, codec kgo.CompressionCodec, offset int64, arrival bool, timestamps ...int64) []byte {
	t.Helper()
	b := kmsg.RecordBatch{
		FirstOffset: offset, Magic: 2, LastOffsetDelta: int32(len(timestamps) - 1), NumRecords: int32(len(timestamps)),
		FirstTimestamp: timestamps[0], MaxTimestamp: slices.Max(timestamps),
	}
	for i, ms := range timestamps {
		r := kmsg.Record{TimestampDelta64: ms - timestamps[0], OffsetDelta: int32(i), Value: fmt.Append(nil, i)}
		body := r.AppendTo(nil)[1:] // without the length, which is 0 here
		b.Records = append(binary.AppendVarint(b.Records, int64(len(body))), body...)
	}
	if compressor, err := kgo.DefaultCompressor(codec); err == nil && compressor != nil {
		var kind kgo.CompressionCodecType
		b.Records, kind = compressor.Compress(new(bytes.Buffer), b.Records)
		b.Attributes = int16(kind)
	}
	if arrival {
		b.Attributes |= appendTimeBit
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
