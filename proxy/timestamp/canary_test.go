package timestamp

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// canaries are payloads of all shapes: text, with quotes, digits, digits with a point, times,
// bytes that are no text.
var canaries = []string{
	"anna@example.org", `"anna@example.org"`, `{"email":"anna@example.org"}`, "4111111111111111", "-4111111111111111", "4111111111111111.25",
	"4111111111111111e300", "2025-11-21T04:40:00 anna", "anna-secr", "\xff\xfeanna@example.org", "anna@example.org\n", strings.Repeat("anna@example.org", 30),
}

// TestNoPayloadInErrors: whatever a record holds where an event time was looked for, no word
// of it is in the error, which says how long it is.
func TestNoPayloadInErrors(t *testing.T) {
	schemas := registryOf(map[uint32]Schema{
		1: avroSchema(`{"type":"record","name":"P","fields":[{"name":"ts","type":"string"}]}`),
		2: avroSchema(`{"type":"record","name":"P","fields":[{"name":"ts","type":"bytes"}]}`),
		3: avroSchema(`{"type":"record","name":"P","fields":[{"name":"ts","type":"long"}]}`),
		4: avroSchema(`{"type":"record","name":"P","fields":[{"name":"ts","type":{"type":"fixed","name":"F","size":16}}]}`),
		5: protoSchema(`message P { string ts = 1; }`),
		6: protoSchema(`message P { bytes ts = 1; }`),
		7: protoSchema(`message P { uint64 ts = 1; sint64 s = 2; fixed64 f = 3; google.protobuf.Timestamp at = 4; }`),
	})
	framed := func(id byte, body ...byte) []byte { return append([]byte{0, 0, 0, 0, id}, body...) }
	text := func(s string) []byte { return append(binary.AppendVarint(nil, int64(len(s))), s...) }
	field := func(s string) []byte {
		return append(append([]byte{0, 0x0a}, binary.AppendUvarint(nil, uint64(len(s)))...), s...)
	}
	refused := 0
	for _, canary := range canaries {
		values := [][]byte{
			[]byte(canary), []byte(`{"ts":` + canary), []byte(fmt.Sprintf(`{"ts":%q}`, canary)), []byte(`{"ts":` + canary + `}`), []byte(`{"ts":["` + canary + `"]}`), []byte(`{"ts":{"x":"` + canary + `"}}`),
			framed(1, text(canary)...), framed(2, text(canary)...), framed(4, []byte((canary + strings.Repeat("x", 16))[:16])...), framed(5, field(canary)...), framed(6, field(canary)...),
			framed(3, binary.AppendVarint(nil, 4111111111111111111)...), framed(7, append([]byte{0, 8}, binary.AppendUvarint(nil, 14111111111111111111)...)...),
			framed(7, append([]byte{0, 0x22, 11, 8}, binary.AppendUvarint(nil, 14111111111111111111)...)...), framed(99, []byte(canary)...), framed(1, []byte(canary)...), framed(5, []byte(canary)...),
			append([]byte{0, 0, 0, 0, 1}, "\x7f"+canary...), nil,
		}
		for _, value := range values {
			for _, f := range append([]format{"", "local:Europe/Paris"}, formats...) {
				for _, kind := range []string{"header:ts", "json:ts", "avro:ts", "protobuf:ts", "protobuf:at"} {
					spec := kind
					if f != "" {
						spec += ":" + string(f)
					}
					e, err := Parse(spec)
					if err != nil {
						continue // JSON has no int64-be
					}
					schemas.sources = e
					_, err = e.With(schemas).Extract(&kgo.Record{Key: []byte(canary), Value: value, Headers: []kgo.RecordHeader{{Key: "ts", Value: []byte(canary)}, {Key: guidHeader, Value: []byte(canary)}}})
					if err == nil {
						continue
					}
					refused++
					said := err.Error()
					for _, word := range []string{"anna", "example", "secr", "4111111", "1411111"} {
						if strings.Contains(said, word) {
							t.Fatalf("%s of %q: %s", spec, value, said)
						}
					}
					if !utf8.ValidString(said) || strings.ContainsAny(said, "\n\x1b") {
						t.Fatalf("%s of %q upsets a terminal: %q", spec, value, said)
					}
				}
			}
		}
	}
	if refused < 1000 {
		t.Errorf("only %d errors", refused)
	}
}

func registryOf(schemas map[uint32]Schema) *stage { return &stage{schemas: schemas} }
