package reorder

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// TestTakeover: a process that takes up what three others held, each of them up to its
// budget, holds no more than the budget and what one of them had. With enough memory
// all are read again side by side.
func TestTakeover(t *testing.T) {
	const budget, size, members = 1 << 20, 1000, 3
	opts := Options{Bound: time.Hour}
	record := func(offset int64) Record {
		return Record{Offset: offset, Time: watermark.Time(offset) * 1e6, Size: size}
	}
	var snaps []Snapshot
	var largest int64
	for range members {
		e := NewEngine(opts, budget)
		p := e.Assign(Fresh(0, 0, 0), 0)
		for e.Bytes() < budget*9/10 {
			p.Step(record(p.NextOffset()), 0)
		}
		snaps, largest = append(snaps, p.Snapshot()), e.Bytes()
	}
	for _, room := range []int64{budget, members * budget} {
		e := NewEngine(opts, room)
		var parts []*Partition
		for _, s := range snaps {
			parts = append(parts, e.Assign(s, 0))
		}
		var most, waited int64
		for ended := 0; ended < members; {
			for _, p := range parts { // as polls bring them
				end, replaying := p.Replaying()
				switch {
				case !replaying || p.Waits():
				case p.Position() < end:
					p.Step(record(p.Position()), 0)
				case p.EndReplay(end, false) != nil:
					t.Fatal("a loss where nothing is lost")
				default:
					ended++
				}
				for e.Crowded() {
					if e.Yield() != nil {
						waited++
						continue
					}
					relieved := e.Relieve()
					if relieved == nil {
						break
					}
					for relieved.Next(new(Release)) {
					}
				}
				most = max(most, e.Bytes())
			}
			e.Resume()
		}
		if most > room+largest || (waited > 0) != (room == budget) {
			t.Errorf("with room for %d: %d bytes were held, %d gave way", room, most, waited)
		}
	}
}
