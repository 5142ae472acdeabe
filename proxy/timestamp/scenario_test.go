package timestamp

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios put out into testdata")

// TestScenarios plays the scripts in testdata, which are there to be read: each
// source in the words of its users. A script is commands, a line of dashes, and what
// they led to up to the next empty line; # begins a comment.
//
//	sources LIST          as TIDEMARK_EVENT_TIME has it
//	schema ID avro TEXT | schema ID protobuf TEXT
//	                      the registry has this schema; proto3, one message
//	asked ID              the registry has not answered yet
//	header NAME VALUE     the next record has this header,
//	timestamp MS          this timestamp, of its producer,
//	arrival MS            or of its arrival,
//	value TEXT            this value,
//	hex BYTES             or these bytes,
//	avro ID JSON          or this, written with a schema,
//	protobuf ID TEXT      or that; else it is a tombstone
//	read                  the event time of the record
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(script))
			switch {
			case got == string(script):
			case *rewrite:
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("got\n%s\nIf that is right: go test ./proxy/timestamp -run Scenarios -rewrite", got)
			}
		})
	}
}

// play returns the script with what it leads to.
func play(t *testing.T, script string) string {
	var out strings.Builder
	s := stage{t: t, schemas: map[uint32]Schema{}, next: tombstone()}
	lines := strings.Split(strings.TrimRight(script, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		fmt.Fprintln(&out, line)
		switch {
		case line == "----":
			out.WriteString(s.said.String())
			s.said.Reset()
			for i+1 < len(lines) && lines[i+1] != "" {
				i++
			}
		case line != "" && line[0] != '#':
			cmd, rest, _ := strings.Cut(line, " ")
			s.do(cmd, strings.TrimSpace(rest))
		}
	}
	return out.String()
}

// stage is what a script acts on: it is the registry, too.
type stage struct {
	t       *testing.T
	sources *Extractor
	schemas map[uint32]Schema
	asked   uint32
	next    *kgo.Record
	said    strings.Builder
}

func tombstone() *kgo.Record { return record(noTimestamp) }

func (s *stage) Readers(of SchemaID) (*Readers, error) {
	id := uint32(of.Number)
	schema, ok := s.schemas[id]
	switch {
	case ok:
		return s.sources.Compile(schema), nil
	case id == s.asked:
		return nil, &Pending{ID: of}
	}
	return nil, ErrUnknownSchema
}

func (s *stage) do(cmd, rest string) {
	first, second, _ := strings.Cut(rest, " ")
	switch cmd {
	case "sources":
		s.sources = mustParse(s.t, rest)
	case "schema":
		kind, text, _ := strings.Cut(second, " ")
		if s.schemas[s.id(first)] = avroSchema(text); kind == "protobuf" {
			s.schemas[s.id(first)] = protoSchema(text)
		}
	case "asked":
		s.asked = s.id(first)
	case "header":
		s.next.Headers = append(s.next.Headers, kgo.RecordHeader{Key: first, Value: []byte(second)})
	case "timestamp", "arrival":
		ms, err := strconv.ParseInt(first, 10, 64)
		s.must(err)
		s.next.Timestamp = record(ms).Timestamp
		if cmd == "arrival" {
			s.next.Attrs = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{TimestampType: logAppendTime})
		}
	case "value":
		s.next.Value = []byte(rest)
	case "hex":
		value, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		s.must(err)
		s.next.Value = value
	case "avro":
		s.next.Value = s.framed(first, nil, encoded(s.t, s.schemas[s.id(first)].Text, s.object(second)))
	case "protobuf":
		schema := strings.TrimPrefix(s.schemas[s.id(first)].Text, protoSchema("").Text)
		name := strings.Fields(schema[strings.Index(schema, "message "):])[1]
		s.next.Value = s.framed(first, []int{0}, messageOf(s.t, schema, name, second))
	case "read":
		s.read()
		s.next = tombstone()
	default:
		s.t.Fatalf("unknown command %s", cmd)
	}
}

func (s *stage) read() {
	at, err := s.sources.With(s).Extract(s.next)
	if err != nil {
		fmt.Fprintln(&s.said, err)
		return
	}
	fmt.Fprintln(&s.said, time.Unix(0, int64(at)).UTC().Format(time.RFC3339Nano))
}

func (s *stage) must(err error) {
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) id(text string) uint32 {
	id, err := strconv.ParseUint(text, 10, 32)
	s.must(err)
	return uint32(id)
}

func (s *stage) framed(id string, index []int, body []byte) []byte {
	head, err := new(sr.ConfluentHeader).AppendEncode(nil, int(s.id(id)), index)
	s.must(err)
	return append(head, body...)
}

// object reads JSON for an encoder: its numbers are whole.
func (s *stage) object(text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	s.must(d.Decode(&v))
	return s.whole(v)
}

func (s *stage) whole(v any) any {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		s.must(err)
		return n
	case map[string]any:
		for k := range v {
			v[k] = s.whole(v[k])
		}
	}
	return v
}
