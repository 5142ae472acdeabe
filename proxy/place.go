package proxy

import (
	"time"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// waits are what a session waits for: how long that may take when all is well, and where
// to look when it does not end.
type waits struct {
	loading, joining, takingUp fault.Wait
}

func newWaits(t fault.Commands) waits {
	return waits{
		loading:  fault.GroupWait(t, "what is committed of partitions that are taken up, and where their logs begin and end", slowAnswer),
		joining:  fault.GroupWait(t, "our place in the group, for which all other members have to join again", fault.JoinPatience),
		takingUp: fault.GroupWait(t, "partitions of ours: to join again, or their offsets", fault.JoinPatience),
	}
}

// missing is what a session waits for beside its loop, and that the client has to bring
// about: its place in the group, or the partitions that it was assigned.
type missing struct {
	wait   *fault.Wait
	end    func()
	looked time.Time
}

// lookForPlace takes note of what is missing. The loop has nothing else to wait for at
// that moment.
func (s *session) lookForPlace() {
	m := &s.missing
	if time.Since(m.looked) < time.Second {
		return
	}
	m.looked = time.Now()
	var now *fault.Wait
	switch mine := s.member.Assigned(); {
	case mine == nil:
		now = &s.expected.joining
	case s.lacks(*mine):
		now = &s.expected.takingUp
	}
	if now == m.wait {
		return
	}
	s.placeFound()
	if m.wait = now; now != nil {
		it := *now
		it.Lasting = true
		m.end = s.waits.Begin(it)
	}
}

func (s *session) placeFound() {
	if m := &s.missing; m.wait != nil {
		m.end()
		m.wait = nil
	}
}

// lacks reports whether a partition of ours has not been taken up.
func (s *session) lacks(mine map[string][]int32) bool {
	for topic, ps := range mine {
		for _, n := range ps {
			if s.find(topic, n) == nil && !s.isSuspended(topic, n) {
				return true
			}
		}
	}
	return false
}

// slowAnswer is how long brokers may take before it is reported.
const slowAnswer = 5 * time.Second
