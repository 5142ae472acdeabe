package proxy

import (
	"time"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// joining is what a session waits for beside its loop, and that the client has to bring
// about: its place in the group, or the partitions that it was assigned.
type joining struct {
	// How long each may take when all is well, and where to look when it does not end.
	loading, joining, takingUp fault.Wait

	wait   *fault.Wait // one of them; nil: nothing is missing
	end    func()
	looked time.Time
}

func newJoining(t fault.Commands) joining {
	return joining{
		loading:  fault.GroupWait(t, "committed offsets of assigned partitions, and where their logs begin and end", slowAnswer),
		joining:  fault.GroupWait(t, "a place in the group, which all other members have to join again first", fault.JoinPatience),
		takingUp: fault.GroupWait(t, "the assigned partitions: to rejoin the group, or their offsets", fault.JoinPatience),
	}
}

// trackJoining takes note of what is missing. The loop has nothing else to wait for at
// that moment.
func (s *session) trackJoining() {
	m := &s.joining
	if time.Since(m.looked) < time.Second {
		return
	}
	m.looked = time.Now()
	var now *fault.Wait
	switch mine := s.member.Assigned(); {
	case mine == nil:
		now = &m.joining
	case s.lacks(*mine):
		now = &m.takingUp
	}
	if now == m.wait {
		return
	}
	s.joined()
	if m.wait = now; now != nil {
		it := *now
		it.Lasting = true
		m.end = s.reporter.Waits.Begin(it)
	}
}

func (s *session) joined() {
	if m := &s.joining; m.wait != nil {
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
