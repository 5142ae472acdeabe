package group

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// A broker that bounds the bytes of a client answers at once, with a time for which the
// client has to be quiet. The client keeps that time for everything that it has to ask
// of that broker, heartbeats and the end of a transaction among it. So one answer must
// not hold us up for longer than a fraction of the session and of a transaction: what is
// asked for, and put out, at a time is made as small as the quota wants it.

// throttled is a kind of request that a quota may hold back.
type throttled uint8

const (
	otherRequests throttled = iota
	Produce
	Fetch
	throttledKinds
)

func (k throttled) String() string {
	return [...]string{"other", "produce", "fetch"}[k]
}

// setting is the quota of the kind, as Kafka names it.
func (k throttled) setting() string {
	return [...]string{"request_percentage", "producer_byte_rate", "consumer_byte_rate"}[k]
}

func throttledKind(key int16) throttled {
	switch kmsg.Key(key) {
	case kmsg.Produce:
		return Produce
	case kmsg.Fetch:
		return Fetch
	}
	return otherRequests
}

const (
	// quotaWindow is what brokers average over by default: quota.window.num times
	// quota.window.size.seconds, and the sample that is being filled.
	quotaWindow = 11 * time.Second
	// leastAtOnce is the least that is asked for or put out at a time, in bytes.
	leastAtOnce = 4 << 10
	// throttleForgotten is how long after the end of the last throttling what is asked for grows
	// again, and nothing is said of it any more.
	throttleForgotten = time.Minute
	// mostDoublings is after how many doublings nothing is bounded any more.
	mostDoublings = 30
)

// Quotas is what has been learnt of the brokers' quotas. It outlives sessions. It is a
// hook of the clients, and is asked by the loop.
type Quotas struct {
	reporter *fault.Reporter

	// Set before there are clients.
	session, transaction time.Duration // the timeouts
	target               time.Duration // the longest that one answer is to hold us up

	mu      sync.Mutex
	last    map[int32]throttled // the kind answered last, by broker: it is the one that is throttled
	traffic [throttledKinds]map[int32]*traffic
	kinds   [throttledKinds]throttling
}

// throttling is what is known of one kind.
type throttling struct {
	total time.Duration // asked of us since the process began
	last  time.Duration
	at    time.Time // of the last
	rate  float64   // bytes a second that are let through; 0: not known
}

// traffic is the bytes of the last seconds.
type traffic struct {
	second [12]int64
	bytes  [12]int64
}

func (t *traffic) add(now time.Time, bytes int) {
	s := now.Unix()
	i := s % int64(len(t.second))
	if t.second[i] != s {
		t.second[i], t.bytes[i] = s, 0
	}
	t.bytes[i] += int64(bytes)
}

func (t *traffic) within(now time.Time) (sum int64) {
	for i, s := range t.second {
		if now.Unix()-s < int64(quotaWindow/time.Second) {
			sum += t.bytes[i]
		}
	}
	return sum
}

func NewQuotas(reporter *fault.Reporter) *Quotas {
	q := &Quotas{reporter: reporter, last: map[int32]throttled{}}
	for k := range q.traffic {
		q.traffic[k] = map[int32]*traffic{}
	}
	return q
}

// Keep says which timeouts have to be kept.
func (q *Quotas) Keep(cfg config.Config) {
	q.session, q.transaction = cfg.SessionTimeout, cfg.TransactionTimeout
	q.target = min(q.session, q.transaction) / 4
}

// OnBrokerE2E is told of every request and its answer.
func (q *Quotas) OnBrokerE2E(broker kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	kind := throttledKind(key)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last[broker.NodeID] = kind
	if kind == otherRequests {
		return
	}
	t := q.traffic[kind][broker.NodeID]
	if t == nil {
		t = new(traffic)
		q.traffic[kind][broker.NodeID] = t
	}
	t.add(time.Now(), max(e.BytesRead, e.BytesWritten))
}

// OnBrokerThrottle is told of every answer that asks us to be quiet, right after
// OnBrokerE2E was told of that answer.
func (q *Quotas) OnBrokerThrottle(broker kgo.BrokerMetadata, interval time.Duration, _ bool) {
	q.mu.Lock()
	now := time.Now()
	kind := q.last[broker.NodeID]
	k := &q.kinds[kind]
	k.total += interval
	k.last, k.at = interval, now
	if t := q.traffic[kind][broker.NodeID]; t != nil {
		// The broker asks for the time after which the average is at the quota.
		if sum := t.within(now); sum > 0 {
			rate := float64(sum) / (quotaWindow + interval).Seconds()
			if k.rate > 0 {
				rate = min(rate, 1.1*k.rate) // a burst that has just left the broker's window is still in ours
			}
			k.rate = rate
		}
	}
	q.mu.Unlock()
	q.tell(kind, broker, interval)
}

func (q *Quotas) tell(kind throttled, broker kgo.BrokerMetadata, interval time.Duration) {
	args := []any{"broker", net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))), "request", kind.String(), "throttle", interval.String()}
	if interval < min(q.session, q.transaction)/2 {
		q.reporter.Throttle(kind.String(), slog.LevelWarn, fault.None, "a broker quota throttles requests", append(args,
			"hint", "raise "+kind.setting()+" for this client, or for its user")...)
		return
	}
	q.reporter.Throttle(kind.String(), slog.LevelError, fault.None, "a broker quota throttles requests for so long that timeouts may pass; reading and writing less at a time", append(args,
		"session_timeout", q.session.String(), "transaction_timeout", q.transaction.String(),
		"hint", fmt.Sprintf("if it goes on, single batches or records are too large for the quota: raise %s for this client, or for its user; or raise TIDEMARK_SESSION_TIMEOUT and TIDEMARK_TRANSACTION_TIMEOUT above %v", kind.setting(), (2*interval).Round(time.Second)))...)
}

// AtOnce returns how many bytes of a kind may go at a time; most, where no quota is felt.
func (q *Quotas) AtOnce(kind throttled, most int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := &q.kinds[kind]
	if k.rate == 0 {
		return most
	}
	rate := k.rate
	if quiet := time.Since(k.at) - k.last - throttleForgotten; quiet > 0 {
		// Growth is that of the rate: what goes by a grown one counts below, and would
		// leave nothing of one that has stayed as it was.
		doublings := quiet / quotaWindow
		rate *= float64(int64(2) << min(doublings, mostDoublings))
		if doublings >= mostDoublings || rate*q.target.Seconds() > float64(most) {
			k.rate = 0
			return most
		}
	}
	n := rate * q.target.Seconds()
	// What went before still counts: without it, ever longer answers would follow.
	for _, t := range q.traffic[kind] {
		n = min(n, rate*(quotaWindow+q.target).Seconds()-float64(t.within(time.Now())))
	}
	return int(min(max(n, leastAtOnce), float64(most)))
}

// Describe says what quotas do, "" if nothing was felt of them lately.
func (q *Quotas) Describe() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	for kind, k := range q.kinds {
		if !k.at.IsZero() && time.Since(k.at) < k.last+throttleForgotten/2 {
			return fmt.Sprintf("throttled by a quota of the brokers: an answer holds %s requests back for %v (%s)",
				throttled(kind), k.last.Round(time.Millisecond), throttled(kind).setting())
		}
	}
	return ""
}

func (q *Quotas) Totals() fault.Throttled {
	q.mu.Lock()
	defer q.mu.Unlock()
	return fault.Throttled{Produce: q.kinds[Produce].total, Fetch: q.kinds[Fetch].total, Other: q.kinds[otherRequests].total}
}
