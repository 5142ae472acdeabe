package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

// released remembers the last records that came out in order, so that a repeat
// of one of them that comes behind the watermark is called a duplicate, and a
// repair job does not apply it a second time. It changes nothing but that word:
// what becomes of records does not depend on what has been forgotten.
//
// To call by mistake means to have a repair job lose a record. So what is kept is
// a digest that nobody can forge or has ever seen to collide, and a partition
// that is taken up anew begins with no memory: what was put out before may have
// been undone.
//
// A nil one remembers nothing.
type released struct {
	of      emit.Identity
	digests *simplelru.LRU[[sha256.Size]byte, struct{}]
	lives   uint64

	hash hash.Hash
	buf  []byte // scratch
}

func newReleased(cfg config.Config) *released {
	if !cfg.Dedup.On() || cfg.DedupRemember == 0 {
		return nil
	}
	digests, err := simplelru.NewLRU[[sha256.Size]byte, struct{}](cfg.DedupRemember, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	return &released{of: cfg.Dedup.Identity, digests: digests, hash: sha256.New()}
}

// newLife returns what tells a partition from what it was before it was taken up.
func (m *released) newLife() uint64 {
	if m == nil {
		return 0
	}
	m.lives++
	return m.lives
}

func (m *released) add(p *Partition, due *reorder.Release) {
	if m == nil {
		return
	}
	if id := m.of.Of(due.Body); len(id) > 0 {
		m.digests.Add(m.digest(p, due.Epoch, due.Time, id), struct{}{})
	}
}

// repeats reports whether a record that is late, behind the watermark, repeats
// one that is remembered.
func (m *released) repeats(p *Partition, v reorder.Verdict, t watermark.Time, r *kgo.Record) bool {
	if m == nil || v != reorder.BehindWatermark && v != reorder.Overflow {
		return false
	}
	id := m.of.OfRecord(r)
	if len(id) == 0 {
		return false
	}
	_, seen := m.digests.Get(m.digest(p, p.State.Epoch(), t, id))
	return seen
}

func (m *released) digest(p *Partition, epoch uint32, t watermark.Time, id []byte) (d [sha256.Size]byte) {
	m.buf = binary.LittleEndian.AppendUint64(m.buf[:0], p.life)
	m.buf = binary.LittleEndian.AppendUint32(m.buf, epoch)
	m.buf = binary.LittleEndian.AppendUint64(m.buf, uint64(t))
	m.hash.Reset()
	m.hash.Write(m.buf)
	m.hash.Write(id)
	m.buf = m.hash.Sum(m.buf[:0])
	copy(d[:], m.buf)
	return d
}
