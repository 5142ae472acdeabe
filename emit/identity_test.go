package emit

import (
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/tidemarkhq/tidemark/reorder"
)

// What a record is known by is the same whether it is held or not.
func TestIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SampledFrom([][]byte{nil, {}, []byte("a"), []byte("bb")})
		r := &kgo.Record{Key: bytes.Draw(t, "key"), Value: bytes.Draw(t, "value")}
		for range rapid.IntRange(0, 4).Draw(t, "headers") {
			name := rapid.SampledFrom([]string{"id", "ID", "", "other"}).Draw(t, "name")
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: bytes.Draw(t, "header")})
		}
		body := make([]byte, BodySize(r))
		PutBody(body, r)
		for _, id := range []Identity{{}, {Kind: HeaderIdentity, Header: "id"}, {Kind: HeaderIdentity}, {Kind: KeyIdentity}, {Kind: BytesIdentity}} {
			if held, loose := id.Of(body), id.OfRecord(r); string(held) != string(loose) {
				t.Fatalf("%+v: %q held, %q not", id, held, loose)
			}
		}
	})
}

// Nothing but the record's own timestamp may differ in what is the same byte for
// byte; of headers with one name the last counts.
func TestIdentityTellsApart(t *testing.T) {
	record := func(key, value string, headers ...string) *kgo.Record {
		r := &kgo.Record{Key: []byte(key), Value: []byte(value)}
		for i := 0; i+1 < len(headers); i += 2 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
		}
		return r
	}
	bytes, header := Identity{Kind: BytesIdentity}, Identity{Kind: HeaderIdentity, Header: "id"}
	null := record("", "v")
	null.Key = nil
	later := record("k", "v")
	later.Timestamp = later.Timestamp.AddDate(3000, 0, 0)
	for i, c := range []struct {
		id   Identity
		a, b *kgo.Record
		same bool
	}{
		{bytes, record("k", "v"), later, true},
		{bytes, record("k", "v"), record("kv", ""), false},
		{bytes, record("", "v"), null, false},
		{bytes, record("k", "v", "a", "bc"), record("k", "v", "ab", "c"), false},
		{bytes, record("k", "v", "a", "", "b", ""), record("k", "v", "b", "", "a", ""), false},
		{header, record("k", "v", "id", "1"), record("l", "w", "id", "2", "id", "1"), true},
		{header, record("k", "v", "id", "1"), record("k", "v", "id", "1", "id", "2"), false},
		{Identity{Kind: KeyIdentity}, record("k", "v"), record("k", "w"), true},
	} {
		if same := string(c.id.OfRecord(c.a)) == string(c.id.OfRecord(c.b)); same != c.same {
			t.Errorf("case %d: the same: %v", i, same)
		}
	}
	for _, id := range []Identity{header, {Kind: KeyIdentity}} {
		if got := id.OfRecord(null); len(got) > 0 {
			t.Errorf("%+v: what has none is known by %q", id, got)
		}
	}
}

// A repeat that was held makes the same late record as one that was not.
func TestDuplicateIsLate(t *testing.T) {
	in := &kgo.Record{Key: []byte("k"), Offset: 7, Headers: []kgo.RecordHeader{{Key: "own", Value: []byte("1")}, {Key: "none"}}}
	body := make([]byte, BodySize(in))
	PutBody(body, in)
	o := NewOutbox(Headers{Prefix: "tidemark-"})
	src := Source{Topic: "s", Late: "s.late", Partition: 3}
	held := o.Duplicate(src, &reorder.Release{Position: reorder.Position{Time: 5e6, Offset: 7}, Epoch: 2, Duplicate: true, Body: body}, 9e6, 1234)
	loose := o.Late(src, in, Lateness{Verdict: reorder.Duplicate, Time: 5e6, Watermark: 9e6, Epoch: 2, AtMs: 1234})
	if !held.Timestamp.Equal(loose.Timestamp) {
		t.Errorf("timestamps %v and %v", held.Timestamp, loose.Timestamp)
	}
	held.Timestamp = loose.Timestamp
	if !reflect.DeepEqual(held, loose) {
		t.Errorf("held:\n%+v\nnot held:\n%+v", held, loose)
	}
	if r := string(held.Headers[2].Value); r != "duplicate" || len(held.Headers) != 9 {
		t.Errorf("reason %q, %d headers", r, len(held.Headers))
	}
}
