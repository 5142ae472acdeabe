package proxy

import (
	"math"

	"github.com/tidemarkhq/tidemark/proxy/group"
)

// heedQuotas takes account of what the quotas want, and slow brokers: of how much is put out until the next
// commit, and of how much is asked for, since for a turn all that was polled is worked off.
func (s *session) heedQuotas() {
	s.writer.SetMost(s.quotas.AtOnce(group.Produce, math.MaxInt))
	most := int(fetchBytes(int64(s.cfg.Memory)))
	n := int32(min(s.quotas.AtOnce(group.Fetch, most), s.writer.Most()))
	if n != s.fetchMost {
		s.fetchMost = n
		s.cl.UpdateFetchMaxBytes(n, min(n, partitionBytes))
	}
}

// partitionBytes is what is asked for of one partition, at the most: the client's default.
const partitionBytes = 1 << 20

// mostPolled is how many records one poll may return: what they become has to be written
// before rebalances are let through.
func (s *session) mostPolled() int { return s.writer.MostRecords(maxPoll) }
