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

// released remembers the last released records, so that a late repeat of one of them is
// marked as a duplicate, and a repair does not apply it a second time. It changes only the
// reason: where records go does not depend on what it has forgotten.
//
// A wrong mark would make a repair lose a record. So it keeps SHA-256 digests, and a
// partition that is taken up again begins with no memory: its released records may have been
// aborted.
//
// A nil released remembers nothing.
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

// newLife returns a number that tells a partition from itself before it was taken up again.
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

// repeats reports whether a late record repeats one that is remembered.
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
