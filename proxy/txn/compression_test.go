package txn

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestSourceCodec: outputs follow the codec of the source, and go on being compressed while
// some batches of it are not.
func TestSourceCodec(t *testing.T) {
	type seen struct {
		codec   kgo.CompressionCodecType
		records int
	}
	for _, test := range []struct {
		name string
		seen []seen
		want kgo.CompressionCodecType
	}{
		{"nothing yet", nil, kgo.CodecNone},
		{"never compressed", []seen{{kgo.CodecNone, 3 * plainFor}}, kgo.CodecNone},
		{"compressed", []seen{{kgo.CodecZstd, 1}}, kgo.CodecZstd},
		{"the last one was not", []seen{{kgo.CodecZstd, 5}, {kgo.CodecNone, plainFor - 1}}, kgo.CodecZstd},
		{"many were not, one after the other", []seen{{kgo.CodecZstd, 5}, {kgo.CodecNone, plainFor / 2}, {kgo.CodecZstd, 1}, {kgo.CodecNone, plainFor / 2}}, kgo.CodecZstd},
		{"not any more", []seen{{kgo.CodecZstd, 5}, {kgo.CodecNone, plainFor}}, kgo.CodecNone},
		{"another codec", []seen{{kgo.CodecZstd, 5}, {kgo.CodecLz4, 1}}, kgo.CodecLz4},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c SourceCodec
			for _, s := range test.seen {
				for range s.records {
					c.Saw(uint8(s.codec))
				}
			}
			if _, got := c.Compress(new(bytes.Buffer), make([]byte, 10_000)); got != test.want {
				t.Errorf("codec %d, want %d", got, test.want)
			}
		})
	}
}
