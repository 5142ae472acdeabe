package txn

import (
	"bytes"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Outputs are compressed like their source by default: whoever chose the source's codec
// weighed its cost against network and disk, and the output has nearly the same bytes.

// Codecs are the codecs that may be configured for outputs.
var Codecs = map[config.Compression]kgo.CompressionCodec{
	config.Uncompressed: kgo.NoCompression(), config.Gzip: kgo.GzipCompression(), config.Snappy: kgo.SnappyCompression(),
	config.LZ4: kgo.Lz4Compression(), config.Zstd: kgo.ZstdCompression(),
}

// CompressionOpt returns the compression of outputs as an option of the client.
func CompressionOpt(cfg config.Config, same *SourceCodec) kgo.Opt {
	if codec, ok := Codecs[cfg.Compression]; ok {
		return kgo.ProducerBatchCompression(codec)
	}
	return kgo.WithCompressor(same)
}

// SourceCodec compresses with the codec of the source batch that was read last, from whichever
// topic: the client does not tell a compressor which topic a batch is for
// (docs/design/client.md). An uncompressed batch counts only after many others: producers that
// compress send the batches uncompressed that compression would not make smaller.
type SourceCodec struct {
	latest  atomic.Uint32
	made    [5]atomic.Pointer[kgo.Compressor]
	current uint8 // latest, as the loop knows it, to store latest only when it changes
	plain   int   // records in a row that were not compressed
}

// plainFor is how many records in a row are not compressed until the outputs are not either.
const plainFor = 10_000

// Saw records the codec of the batch that a record was read from.
func (c *SourceCodec) Saw(codec uint8) {
	if codec != uint8(kgo.CodecNone) {
		c.plain = 0
	} else if c.plain++; c.plain < plainFor {
		return
	}
	if codec != c.current {
		c.current = codec
		c.latest.Store(uint32(codec))
	}
}

// Compress is called by the client, from several goroutines.
func (c *SourceCodec) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	codec := kgo.CompressionCodecType(c.latest.Load())
	if codec == kgo.CodecNone || int(codec) >= len(c.made) {
		return src, kgo.CodecNone
	}
	with := c.made[codec].Load()
	if with == nil {
		by := map[kgo.CompressionCodecType]config.Compression{
			kgo.CodecGzip: config.Gzip, kgo.CodecSnappy: config.Snappy, kgo.CodecLz4: config.LZ4, kgo.CodecZstd: config.Zstd,
		}
		made, err := kgo.DefaultCompressor(Codecs[by[codec]])
		if err != nil {
			return src, kgo.CodecNone
		}
		with = &made
		c.made[codec].Store(with)
	}
	return (*with).Compress(dst, src, flags...)
}
