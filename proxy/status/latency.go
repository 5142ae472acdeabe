package status

import "github.com/tidemarkhq/tidemark/watermark"

// ReleaseLatency measures how long released records take to be committed: from the poll
// that released them to the end of the commit. A zero one is ready to use.
type ReleaseLatency struct {
	releases            // of the last poll
	before   []releases // of earlier ones since the last commit
}

type releases struct {
	polled watermark.Instant
	n      uint64 // records released because of it
}

// Polled starts a new poll: the latency of what is released from here on counts from now.
func (r *ReleaseLatency) Polled(now watermark.Instant) {
	if r.n > 0 {
		r.before = append(r.before, r.releases)
	}
	r.releases = releases{polled: now}
}

// Released counts one record.
func (r *ReleaseLatency) Released() { r.n++ }

// TakeBack uncounts the record that was counted last.
func (r *ReleaseLatency) TakeBack() {
	if r.n > 0 {
		r.n--
	}
}

// Commit adds the latency of each counted record to h. The commit ended now.
func (r *ReleaseLatency) Commit(now watermark.Instant, h *Histogram) {
	for _, b := range r.before {
		h.observe(now.Sub(b.polled), b.n)
	}
	if r.n > 0 {
		h.observe(now.Sub(r.polled), r.n)
	}
	r.Abort()
}

// Abort forgets the records: they were aborted.
func (r *ReleaseLatency) Abort() { r.before, r.n = r.before[:0], 0 }
