//go:build unix

package proxy

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2/client"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Everything fails at once: sidecars are killed, frozen, added and removed,
// brokers are killed, frozen and rolled, and the network between them is slow,
// cut or gone, while a source writes and a consumer of committed records looks
// on. Then it is quiet, and the contract has to hold. bench/chaos prepares a
// cluster for it; on one that is not ours, sidecars alone suffer.
//
// TIDEMARK_TEST_RECORDS records are written over TIDEMARK_TEST_FOR;
// TIDEMARK_TEST_SEED decides what happens, and TIDEMARK_TEST_REPORT is the file
// that the report goes to as well.
func TestKafkaChaos(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: processes need a real cluster")
	}
	onReal(t, os.Getenv(brokersVar), func(t *testing.T, c *cluster) {
		seed := uint64(fromEnv(t, "TIDEMARK_TEST_SEED", 1))
		w := workload{
			seed: seed, records: fromEnv(t, "TIDEMARK_TEST_RECORDS", 100_000), partitions: 4,
			step: 100 * time.Microsecond, transactions: true, over: duration(t, "TIDEMARK_TEST_FOR", 20*time.Second),
		}
		// Six batches a second: the writer can catch up on what it could not
		// write while brokers were away.
		w.chunk = 1 + int(float64(w.records)/w.over.Seconds()/3)
		// When a leader is away the writer waits, and partitions that are
		// not affected are idle: their watermark moves by the clock, and how
		// many records are late is no longer a function of the seed. So this
		// is for even seeds; with odd ones the number has to be right.
		w.drains = seed%2 == 0
		env := []string{noDrain}
		if w.drains {
			env = nil
		}
		topic := c.topic(w.partitions)
		b := c.brokers()
		env = append(env, "TIDEMARK_BROKERS="+b.seeds())
		x := &chaos{
			c: c, brokers: b, cfg: c.config(topic), events: &events{count: map[string]int{}},
			ps: c.processes(topic, env...),
		}
		defer x.ps.end()
		x.ps.spawn("a")
		x.ps.spawn("b")
		c.await("the first commit", func() bool { return len(c.commits(x.cfg)) > 0 })
		reader := c.lookOn(x.cfg.OrderedTopic(topic), 0, 1, 2, 3)
		written := c.writing(topic, &w)
		x.began, x.act = time.Now(), min(w.over/time.Duration(len(acts)), 40*time.Second)
		x.rage(seed, written)
		took := time.Since(x.began)
		calm := since(x.calm)
		reader.leave()
		for _, g := range reader.gaps {
			if g.length() > 10*time.Second {
				t.Logf("partition %d had nothing to read from %s for %v, with: %s", g.partition,
					g.from.Format(time.TimeOnly), g.length().Round(time.Millisecond), strings.Join(x.events.during(g), ", "))
			}
		}
		r, verdict := c.holdsButForTorn(x.cfg, &w)
		report(t, fmt.Sprintf("chaos with seed %d: %d records in %v, %.0f a second, all out %v later\n"+
			"sidecars: %d SIGKILL, %d SIGTERM, %d SIGSTOP; brokers: %d SIGKILL, %d SIGTERM, %d SIGSTOP\n%s"+
			"%d ordered, late %v, %d buffered: the contract %s\n",
			seed, w.records, took.Round(time.Second), float64(w.records)/took.Seconds(), calm.Round(100*time.Millisecond),
			x.ps.sent[syscall.SIGKILL], x.ps.sent[syscall.SIGTERM], x.ps.sent[syscall.SIGSTOP],
			x.events.count["kill"], x.events.count["restart"], x.events.count["pause"],
			x.events.table(reader.gaps), r.Ordered, r.Late, r.Buffered, verdict))
	})
}

// chaos is one run of it.
type chaos struct {
	c       *cluster
	cfg     config.Config
	ps      *processes
	brokers *brokers // nil where they are beyond reach
	events  *events
	began   time.Time
	act     time.Duration // of which one lasts
	dues    []due         // what the lane of the sidecars has to do later
}

// due is something to be done at a time.
type due struct {
	at time.Time
	do func()
}

// disturbance is something that can be made to happen, as often as its weight says.
type disturbance struct {
	kind   string
	weight int
	do     func(*rand.Rand)
}

// rage lets faults happen until the source has been written. Those of the
// sidecars, of the brokers and of the network each have a lane: they meet each
// other, but not their like. When it returns, brokers and network are well.
func (x *chaos) rage(seed uint64, written <-chan struct{}) {
	lane := func(n lane, faults []disturbance, rest time.Duration) func() {
		rnd := rand.New(rand.NewPCG(seed, 10+uint64(n)))
		return func() { x.run(n, rnd, written, faults, rest) }
	}
	var others sync.WaitGroup
	if x.brokers != nil {
		others.Go(lane(ofBrokers, x.brokerFaults(), 6*time.Second))
		if x.brokers.net != nil {
			others.Go(lane(ofNetwork, x.networkFaults(), 4*time.Second))
		}
	}
	lane(ofSidecars, x.sidecarFaults(), 1500*time.Millisecond)()
	others.Wait()
}

// lane is a family of faults.
type lane int

const (
	ofSidecars lane = iota
	ofBrokers
	ofNetwork
)

// acts are which lanes are open, one act after the other and again from the
// first: alone, so that a standstill has one cause, and together.
var acts = [][]lane{
	{ofSidecars},
	{ofBrokers},
	{ofNetwork},
	{ofSidecars, ofBrokers},
	{ofSidecars, ofNetwork},
	{ofSidecars, ofBrokers, ofNetwork},
}

// open reports whether a lane is, now.
func (x *chaos) open(n lane) bool {
	return x.brokers == nil || slices.Contains(acts[int(time.Since(x.began)/x.act)%len(acts)], n)
}

func (x *chaos) run(n lane, rnd *rand.Rand, written <-chan struct{}, faults []disturbance, rest time.Duration) {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	for {
		select {
		case <-written:
			return
		case <-time.After(rest/4 + time.Duration(rnd.Int64N(int64(rest*3/2)))):
		}
		if n == ofSidecars {
			x.settle(time.Now())
		}
		if !x.open(n) {
			continue
		}
		pick := rnd.IntN(sum)
		for _, f := range faults {
			if pick -= f.weight; pick < 0 {
				f.do(rnd)
				break
			}
		}
	}
}

// calm waits until those left running have read everything, and has one more
// put out what they hold.
func (x *chaos) calm() {
	x.c.t.Helper()
	for len(x.dues) > 0 {
		x.settle(time.Now().Add(time.Hour))
	}
	x.c.awaitFor(3*time.Minute, "all read", func() bool { x.settle(time.Now()); return x.c.read(x.cfg) })
	for _, name := range x.ps.names() {
		x.ps.stop(name)
	}
	x.ps.env = nil
	x.ps.spawn("a")
	x.c.await("all put out", func() bool { return x.c.drained(x.cfg) })
	x.ps.stop("a")
}

// settle does what is due, and replaces who has ended by itself, as a
// supervisor would.
func (x *chaos) settle(now time.Time) {
	x.dues = slices.DeleteFunc(x.dues, func(d due) bool {
		if d.at.After(now) {
			return false
		}
		d.do()
		return true
	})
	for _, name := range x.ps.ended() {
		x.ps.spawn(name)
	}
}

func (x *chaos) later(wait time.Duration, do func()) {
	x.dues = append(x.dues, due{time.Now().Add(wait), do})
}

// most is how many sidecars run at a time, at the most.
const most = 4

func (x *chaos) sidecarFaults() []disturbance {
	session := x.cfg.SessionTimeout
	// whoever does something to one that is awake, if two are: somebody has to
	// do the work
	any := func(kind string, weight, need int, do func(rnd *rand.Rand, name string)) disturbance {
		return disturbance{kind, weight, func(rnd *rand.Rand) {
			x.settle(time.Now())
			if awake := x.ps.awake(); len(awake) >= need {
				do(rnd, awake[rnd.IntN(len(awake))])
			}
		}}
	}
	return []disturbance{
		any("sidecar killed, restarted", 30, 1, func(_ *rand.Rand, name string) {
			x.events.once("sidecar killed, restarted")
			x.ps.kill(name)
			x.ps.spawn(name)
		}),
		any("sidecar killed for good", 12, 2, func(_ *rand.Rand, name string) {
			over := x.events.begin("sidecar killed for good")
			x.ps.kill(name)
			x.later(session+3*time.Second, over)
		}),
		any("sidecar stopped, restarted", 10, 1, func(_ *rand.Rand, name string) {
			over := x.events.begin("sidecar stopped, restarted")
			x.ps.stop(name)
			x.ps.spawn(name)
			over()
		}),
		any("sidecar leaves", 6, 2, func(_ *rand.Rand, name string) {
			over := x.events.begin("sidecar leaves")
			x.ps.stop(name)
			over()
		}),
		any("sidecar joins", 18, 1, func(*rand.Rand, string) { x.join() }),
		any("rebalance storm", 3, 1, func(rnd *rand.Rand, _ string) {
			over := x.events.begin("rebalance storm")
			for range 8 {
				if awake := x.ps.awake(); len(awake) > 1 && rnd.IntN(2) == 0 {
					x.ps.stop(awake[rnd.IntN(len(awake))])
				} else {
					x.join()
				}
				time.Sleep(time.Second)
				x.settle(time.Now())
			}
			over()
		}),
		any("sidecar frozen beyond its session", 8, 2, func(_ *rand.Rand, name string) {
			x.freeze("sidecar frozen beyond its session", name, session+2*time.Second)
		}),
		any("sidecar frozen", 10, 1, func(rnd *rand.Rand, name string) {
			x.freeze("sidecar frozen", name, 50*time.Millisecond+time.Duration(rnd.Int64N(int64(session)/2)))
		}),
	}
}

// join starts an instance that does not run.
func (x *chaos) join() {
	running := x.ps.names()
	for _, name := range []string{"a", "b", "c", "d"} {
		if !slices.Contains(running, name) && len(running) < most {
			x.events.once("sidecar joins")
			x.ps.spawn(name)
			return
		}
	}
}

func (x *chaos) freeze(kind, name string, wait time.Duration) {
	over := x.events.begin(kind)
	x.ps.freeze(name)
	x.later(wait, func() { x.ps.thaw(name); over() })
}

func (x *chaos) brokerFaults() []disturbance {
	b := x.brokers
	one := func(rnd *rand.Rand) int { return 1 + rnd.IntN(b.n) }
	revive := func(kind string, who ...int) {
		over := x.events.begin(kind)
		var all sync.WaitGroup
		for _, i := range who {
			x.tell("kill", i)
		}
		for _, i := range who {
			all.Go(func() { b.do("restart", i) })
		}
		all.Wait()
		over()
	}
	faults := []disturbance{
		{"broker killed", 30, func(rnd *rand.Rand) { revive("broker killed", one(rnd)) }},
		{"coordinating broker killed", 20, func(rnd *rand.Rand) {
			i := x.c.coordinator(x.cfg.Group, true)
			if rnd.IntN(2) == 0 {
				i = x.c.coordinator(x.cfg.TransactionalID(), false)
			}
			revive("coordinating broker killed", cmp.Or(i, one(rnd)))
		}},
		{"broker frozen", 10, func(rnd *rand.Rand) {
			over := x.events.begin("broker frozen")
			i := one(rnd)
			x.tell("pause", i)
			time.Sleep(time.Second + time.Duration(rnd.Int64N(int64(12*time.Second))))
			b.do("resume", i)
			over()
		}},
		{"rolling restart of brokers", 6, func(*rand.Rand) {
			over := x.events.begin("rolling restart of brokers")
			for i := 1; i <= b.n; i++ {
				x.tell("restart", i)
			}
			over()
		}},
	}
	if b.n > 2 {
		faults = append(faults,
			disturbance{"two brokers killed", 12, func(rnd *rand.Rand) {
				i := rnd.IntN(b.n)
				revive("two brokers killed", 1+i, 1+(i+1)%b.n)
			}},
			disturbance{"leaders moved", 22, func(rnd *rand.Rand) {
				over := x.events.begin("leaders moved")
				x.c.moveLeaders(rnd, x.cfg)
				over()
			}})
	}
	return faults
}

// tell does something to a broker and counts it.
func (x *chaos) tell(command string, broker int) {
	x.events.add(command)
	x.brokers.do(command, broker)
}

// networkFaults make the network of one broker, or of all, a bad one for some
// seconds.
func (x *chaos) networkFaults() []disturbance {
	toxic := func(kind, name string, weight int, attributes func(*rand.Rand) toxiproxy.Attributes) disturbance {
		return disturbance{kind, weight, func(rnd *rand.Rand) {
			over := x.events.begin(kind)
			stream := []string{"upstream", "downstream"}[rnd.IntN(2)]
			set := attributes(rnd)
			x.poison(rnd, func(p *toxiproxy.Proxy) error {
				_, err := p.AddToxic(kind, name, stream, 1, set)
				return err
			}, func(p *toxiproxy.Proxy) error { return p.RemoveToxic(kind) })
			over()
		}}
	}
	between := func(rnd *rand.Rand, low, high int) int { return low + rnd.IntN(high-low) }
	return []disturbance{
		toxic("network: latency", "latency", 3, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"latency": between(rnd, 5, 300), "jitter": between(rnd, 1, 100)}
		}),
		toxic("network: little bandwidth", "bandwidth", 3, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"rate": between(rnd, 20, 1000)} // KB/s
		}),
		toxic("network: small packets", "slicer", 1, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"average_size": between(rnd, 50, 2000), "size_variation": 40, "delay": between(rnd, 10, 200)} // µs
		}),
		toxic("network: slow close", "slow_close", 2, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"delay": between(rnd, 500, 5000)}
		}),
		toxic("network: silence", "timeout", 3, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"timeout": rnd.IntN(2) * between(rnd, 100, 3000)} // 0: until it is over
		}),
		toxic("network: resets", "reset_peer", 3, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"timeout": between(rnd, 0, 1000)}
		}),
		toxic("network: cut after some bytes", "limit_data", 3, func(rnd *rand.Rand) toxiproxy.Attributes {
			return toxiproxy.Attributes{"bytes": between(rnd, 100, 200_000)}
		}),
		{"network: partition", 4, func(rnd *rand.Rand) {
			over := x.events.begin("network: partition")
			x.poison(rnd, (*toxiproxy.Proxy).Disable, (*toxiproxy.Proxy).Enable)
			over()
		}},
	}
}

// poison does something to the network of one broker, or of all, and mends it
// some seconds later.
func (x *chaos) poison(rnd *rand.Rand, harm, mend func(*toxiproxy.Proxy) error) {
	var who []*toxiproxy.Proxy
	if all := x.brokers.net; rnd.IntN(3) > 0 {
		who = all
	} else {
		who = []*toxiproxy.Proxy{all[rnd.IntN(len(all))]}
	}
	for _, p := range who {
		if err := harm(p); err != nil {
			x.c.t.Errorf("toxiproxy: %v", err)
		}
	}
	time.Sleep(time.Second + time.Duration(rnd.Int64N(int64(5*time.Second))))
	for _, p := range who {
		if err := mend(p); err != nil {
			x.c.t.Errorf("toxiproxy: %v", err)
		}
	}
}

// events is what happened when.
type events struct {
	mu     sync.Mutex
	spells []*spell
	count  map[string]int
}

// spell is a fault under way.
type spell struct {
	kind     string
	from, to time.Time // to is zero until it is over
}

func (e *events) add(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count[what]++
}

func (e *events) once(kind string) { e.begin(kind)() }

// begin notes that a fault begins; what it returns, that it is over.
func (e *events) begin(kind string) (over func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &spell{kind: kind, from: time.Now()}
	e.spells = append(e.spells, s)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		s.to = time.Now()
	}
}

// aftermath is how long after a fault a gap may begin that it has caused.
const aftermath = time.Second

// during returns the kinds of fault that were under way in a gap.
func (e *events) during(g gap) (kinds []string) {
	for _, s := range e.spells {
		if s.from.Before(g.to) && (s.to.IsZero() || s.to.Add(aftermath).After(g.from)) && !slices.Contains(kinds, s.kind) {
			kinds = append(kinds, s.kind)
		}
	}
	return kinds
}

// table tells, of each kind of fault, how often it was and how long a consumer
// stood still when it was under way, by itself and together with others.
func (e *events) table(gaps []gap) string {
	times, alone, among := map[string]int{}, map[string]time.Duration{}, map[string]time.Duration{}
	for _, s := range e.spells {
		times[s.kind]++
	}
	for _, g := range gaps {
		kinds := e.during(g)
		if len(kinds) == 0 {
			kinds = []string{"nothing"}
		}
		for _, kind := range kinds {
			if len(kinds) == 1 {
				alone[kind] = max(alone[kind], g.length())
			} else {
				among[kind] = max(among[kind], g.length())
			}
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "times\tlongest standstill\twith other faults\t  fault\t")
	kinds := slices.Collect(maps.Keys(times))
	if alone["nothing"] > 0 {
		kinds = append(kinds, "nothing")
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		fmt.Fprintf(w, "%d\t%s\t%s\t  %s\n", times[kind], seconds(alone[kind]), seconds(among[kind]), kind)
	}
	w.Flush()
	return b.String()
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// report logs a text and appends it to the report, if one is asked for.
func report(t *testing.T, text string) {
	t.Helper()
	t.Log("\n" + text)
	path := os.Getenv("TIDEMARK_TEST_REPORT")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, text)
}

func duration(t *testing.T, key string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(key)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return d
}
