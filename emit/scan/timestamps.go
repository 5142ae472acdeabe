package scan

import (
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// keeping is a decompressor that keeps what it has made, by the bytes that it was made of.
type keeping struct {
	kgo.Decompressor
	made map[*byte][]byte
}

func (k *keeping) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	out, err := k.Decompressor.Decompress(src, codec)
	if err == nil && len(src) > 0 {
		k.made[unsafe.SliceData(src)] = out
	}
	return out, err
}

// Where the fields of a batch stand.
const (
	atLength, atMagic, atAttributes, atLastDelta, atFirstTimestamp, atRecords, batchHeader = 8, 16, 21, 23, 27, 57, 61

	codecBits, appendTimeBit = 7, 8 // of the attributes
)

// correctTimestamps gives records, which come from batches, the timestamps that they have
// there. The client makes others of those outside 1678..2262: see watermark.KafkaMillis.
// Batches of before Kafka 0.11 are left alone.
func correctTimestamps(records []*kgo.Record, batches []byte, unzipped *keeping) {
	for len(batches) >= batchHeader && len(records) > 0 {
		size := int(binary.BigEndian.Uint32(batches[atLength:])) + atLength + 4
		if batches[atMagic] < 2 || size < batchHeader || size > len(batches) {
			return
		}
		batch := batches[:size]
		batches = batches[size:]
		attributes := binary.BigEndian.Uint16(batch[atAttributes:])
		body := batch[batchHeader:]
		if attributes&codecBits != 0 && len(body) > 0 {
			body = unzipped.made[unsafe.SliceData(body)]
		}
		if attributes&appendTimeBit == 0 {
			records = correctBatch(records, batch, body)
		}
	}
}

// correctBatch does so with the records of one batch, and returns those behind it. A batch
// begins with its records' number and ends, and these follow, each with its length:
//
//	length  attributes (1)  timestamp - first  offset - first  ...
func correctBatch(records []*kgo.Record, batch, body []byte) []*kgo.Record {
	first, firstMs := int64(binary.BigEndian.Uint64(batch)), int64(binary.BigEndian.Uint64(batch[atFirstTimestamp:]))
	for len(records) > 0 {
		length, n := binary.Varint(body)
		if n <= 0 || length < 1 || length > int64(len(body)-n) {
			break
		}
		record := body[n : n+int(length)]
		body = body[n+int(length):]
		ms, n := binary.Varint(record[1:])
		if n <= 0 {
			break
		}
		offset, n := binary.Varint(record[1+n:])
		if n <= 0 {
			break
		}
		for len(records) > 0 && records[0].Offset < first+offset {
			records = records[1:]
		}
		if len(records) == 0 || records[0].Offset > first+offset {
			continue
		}
		if ms += firstMs; records[0].Timestamp.UnixMilli() != ms {
			records[0].Timestamp = time.UnixMilli(ms)
		}
		records = records[1:]
	}
	return records
}
