package verify

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/watermark"
)

// The Checker keeps a hash of a record, which does not tell which part was changed. For the
// few that are shown, both records are read once more. Keys, values and headers are told of
// by their names and lengths only.

// explain says of the changed records that a report shows which parts were changed.
func (v *verification) explain(ctx context.Context, p *verified, r *Report) {
	shown := r.Faults[KindChanged].First
	for i := range shown {
		f := &shown[i]
		if f.Why != changedWhy || f.SourceOffset < 0 || f.OutputOffset < 0 {
			continue
		}
		out := p.ordered
		if f.Output == p.late.Topic {
			out = p.late
		}
		source, output := v.one(ctx, p.raw, f.SourceOffset), v.one(ctx, out, f.OutputOffset)
		if source == nil || output == nil {
			continue // deleted meanwhile, or brokers are away: the rest stands
		}
		var parts emit.Parts
		emit.NewReader(v.Prefix, f.Output == p.late.Topic).Read(output, &parts)
		if changes := changesOf(source, &parts); len(changes) > 0 {
			f.Why = "not as in the source: " + strings.Join(changes, "; ")
		}
	}
}

// one returns the record at an offset, or nil.
func (v *verification) one(ctx context.Context, s scan.Stretch, offset int64) *kgo.Record {
	s.Start, s.End = offset, offset+1
	st := scan.Open(ctx, v.cl, s)
	defer st.Close()
	r, _ := st.Peek()
	if r == nil || r.Offset != offset {
		return nil
	}
	return r
}

// changesOf says in which parts an output differs from its source record.
func changesOf(source *kgo.Record, out *emit.Parts) (changes []string) {
	bytesOf := func(what string, was, is []byte) {
		if bytes.Equal(was, is) && (was == nil) == (is == nil) {
			return
		}
		changes = append(changes, fmt.Sprintf("%s (%s, was %s)", what, size(is), size(was)))
	}
	bytesOf("key", source.Key, out.Source.Key)
	bytesOf("value", source.Value, out.Source.Value)
	was, wasInside := watermark.KafkaMillis(source.Timestamp)
	is, isInside := watermark.KafkaMillis(out.Source.Timestamp)
	if was != is && (wasInside || isInside || watermark.NearestMillis(was) != is) {
		changes = append(changes, fmt.Sprintf("timestamp (%d ms, was %d ms)", is, was))
	}
	hs := out.Source.Headers
	named := func(a, b kgo.RecordHeader) bool { return a.Key == b.Key }
	if n := len(source.Headers); n > len(hs) && n <= len(out.Headers) && slices.EqualFunc(source.Headers, out.Headers[:n], named) {
		hs = out.Headers[:n] // some that were taken for ours are the source's
	}
	for i := range max(len(hs), len(source.Headers)) {
		switch {
		case i >= len(hs):
			changes = append(changes, fmt.Sprintf("header %d %.40q is missing", i, source.Headers[i].Key))
		case i >= len(source.Headers):
			changes = append(changes, fmt.Sprintf("header %d %.40q was not there", i, hs[i].Key))
		case hs[i].Key != source.Headers[i].Key:
			changes = append(changes, fmt.Sprintf("header %d is %.40q, was %.40q", i, hs[i].Key, source.Headers[i].Key))
		default:
			bytesOf(fmt.Sprintf("header %d %.40q", i, hs[i].Key), source.Headers[i].Value, hs[i].Value)
		}
	}
	const most = 5
	if rest := len(changes) - most; rest > 0 {
		changes = append(slices.Clip(changes[:most]), fmt.Sprintf("%d more", rest))
	}
	return changes
}

// size tells of bytes without showing them.
func size(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) == 1:
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", len(b))
}
