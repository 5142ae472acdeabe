package pipeline

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// What is remembered is told apart by identity, event time and epoch, and by
// the life of the partition: after an abort it comes out anew, or never did.
func TestReleasedIsRemembered(t *testing.T) {
	cfg := config.Config{Dedup: config.Dedup{Identity: emit.Identity{Kind: emit.KeyIdentity}}, DedupRemember: 3}
	m := newReleased(cfg)
	engine := reorder.NewEngine(reorder.Options{}, 1)
	take := func(epoch uint32) *Partition {
		return &Partition{State: engine.Assign(reorder.Fresh(0, 0, epoch), 0), life: m.newLife()}
	}
	held := func(key string) []byte {
		r := &kgo.Record{Key: []byte(key)}
		body := make([]byte, emit.BodySize(r))
		emit.PutBody(body, r)
		return body
	}
	p, q := take(0), take(0)
	newer := &Partition{State: engine.Assign(reorder.Fresh(0, 0, 1), 0), life: p.life}
	m.add(p, &reorder.Release{Position: reorder.Position{Time: 5}, Body: held("a")})
	for i, c := range []struct {
		p    *Partition
		v    reorder.Verdict
		t    watermark.Time
		key  string
		want bool
	}{
		{p, reorder.BehindWatermark, 5, "a", true},
		{p, reorder.Overflow, 5, "a", true},
		{p, reorder.Future, 5, "a", false},
		{p, reorder.InvalidTime, 5, "a", false},
		{p, reorder.BehindWatermark, 6, "a", false},
		{p, reorder.BehindWatermark, 5, "b", false},
		{p, reorder.BehindWatermark, 5, "", false},
		{q, reorder.BehindWatermark, 5, "a", false},
		{newer, reorder.BehindWatermark, 5, "a", false},
	} {
		if got := m.repeats(c.p, c.v, c.t, &kgo.Record{Key: []byte(c.key)}); got != c.want {
			t.Errorf("case %d: remembered is %v", i, got)
		}
	}
	for _, key := range strings.Fields("b c d") {
		m.add(p, &reorder.Release{Position: reorder.Position{Time: 5}, Body: held(key)})
	}
	if m.repeats(p, reorder.BehindWatermark, 5, &kgo.Record{Key: []byte("a")}) || m.digests.Len() != 3 {
		t.Errorf("%d are remembered, and the first of four is among them", m.digests.Len())
	}
	cfg.DedupRemember = 0
	if newReleased(cfg) != nil || newReleased(config.Config{DedupRemember: 3}) != nil {
		t.Error("something is remembered where nothing is to be")
	}
}
