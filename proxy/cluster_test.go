package proxy

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// One suite for all brokers. Tests whose name has Kafka in it run against a
// real cluster when TIDEMARK_TEST_BROKERS names one, and otherwise, like all
// the others, against kfake in the fake time of a synctest bubble, where a
// minute of waiting costs nothing.

// cluster is what a scenario runs on.
type cluster struct {
	t          *testing.T
	fake       *kfake.Cluster // nil on a real cluster
	connection []kgo.Opt      // without the dialer
	dial       dialer
	cl         *kgo.Client
	adm        *kadm.Client
	ctx        context.Context // ends with the scenario
	end        context.CancelFunc
	writers    sync.WaitGroup
	sidecars   []*sidecar
	books      *books // the schema registry, if there is one
	looks      bool   // somebody looks at the status of sidecars all the time
	run        string // part of names on clusters that outlive the test
	topics     int
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// brokersVar names the real cluster to test against.
const brokersVar = "TIDEMARK_TEST_BROKERS"

// onKafka runs a scenario on the real cluster if there is one, else on kfake.
func onKafka(t *testing.T, scenario func(*testing.T, *cluster)) {
	t.Helper()
	if brokers := os.Getenv(brokersVar); brokers != "" {
		besideOthers(t)
		onReal(t, brokers, scenario)
		return
	}
	onFake(t, scenario)
}

var parallel sync.Map // the tests that go on beside others

// besideOthers lets a test go on beside others, as scenarios may: they share nothing, or on a
// real cluster nothing but that.
func besideOthers(t *testing.T) {
	if _, already := parallel.LoadOrStore(t, true); !already {
		t.Parallel()
	}
}

func onReal(t *testing.T, brokers string, scenario func(*testing.T, *cluster)) {
	c := &cluster{
		t: t, run: fmt.Sprintf("-%x", rand.Uint32()),
		connection: []kgo.Opt{kgo.SeedBrokers(strings.Split(brokers, ",")...)},
		dial:       (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	c.open()
	defer c.close()
	scenario(t, c)
}

// onFake runs a scenario on kfake, in a bubble.
func onFake(t *testing.T, scenario func(*testing.T, *cluster)) {
	t.Helper()
	inBubble(t, func(t *testing.T) { withFake(t, scenario) })
}

// withFake runs a scenario on a kfake of its own.
func withFake(t *testing.T, scenario func(*testing.T, *cluster), opts ...kfake.Opt) {
	var network kfake.VirtualNetwork
	fake, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094), kfake.ListenFn(network.Listen),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	c := &cluster{
		t: t, fake: fake, dial: network.DialContext,
		// A client that is closed waits a second for its metrics to
		// be taken, with locks held: see goroutines.
		connection: []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics()},
	}
	c.open()
	defer c.close()
	scenario(t, c)
}

// neverCutByMaxBytes lifts the bound of a whole fetch, and leaves those of its partitions:
// kfake forgets to name the aborted transactions where a fetch is cut by the former, and
// what was aborted seems to be committed (seed 20261600409 of the simulation).
func (c *cluster) neverCutByMaxBytes() {
	c.fake.ControlKey(kmsg.Fetch.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		r.(*kmsg.FetchRequest).MaxBytes = math.MaxInt32
		return nil, nil, false
	})
}

func (c *cluster) open() {
	c.ctx, c.end = context.WithCancel(c.t.Context())
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(50), kgo.ProducerBatchMaxBytes(32 << 20)}
	if c.fake == nil {
		opts = append(opts, eager()...)
	}
	c.cl = c.client(opts...)
	c.adm = kadm.NewClient(c.cl)
}

// client returns a client of the test's own.
func (c *cluster) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	opts = append(append([]kgo.Opt{kgo.Dialer(c.dial)}, c.connection...), opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// close ends what still runs. A bubble waits for all its goroutines; on a real
// cluster the dead may take their time.
func (c *cluster) close() {
	c.end()
	c.writers.Wait()
	for _, s := range c.sidecars {
		s.crash()
	}
	if c.fake != nil {
		for _, s := range c.sidecars {
			<-s.done
		}
	}
	c.cl.Close()
	if c.fake != nil {
		// Time ends with the test. A client whose sidecar has been killed
		// still tries for a while to reach somebody, and has to end too.
		time.Sleep(2 * time.Minute)
	}
}

// topic creates a topic with a name that no other scenario uses.
func (c *cluster) topic(partitions int32, configs ...string) string {
	c.t.Helper()
	c.topics++
	name := fmt.Sprintf("raw%d%s", c.topics, c.run)
	c.create(name, partitions, configs...)
	return name
}

func (c *cluster) create(name string, partitions int32, configs ...string) {
	c.t.Helper()
	set := map[string]*string{}
	for _, kv := range configs {
		k, v, _ := strings.Cut(kv, "=")
		set[k] = &v
	}
	if _, err := c.adm.CreateTopic(c.ctx, partitions, -1, set, name); err != nil {
		c.t.Fatalf("create %s: %v", name, err)
	}
	c.await("topic "+name, func() bool {
		l, err := c.adm.ListEndOffsets(c.ctx, name)
		return err == nil && l.Error() == nil && len(l[name]) == int(partitions)
	})
}

// patience is how long anything may take before a scenario fails. In a bubble
// it is fake, and may be as long as the slowest timeout of Kafka asks for.
func (c *cluster) patience() time.Duration {
	if c.fake != nil {
		return 10 * time.Minute
	}
	return 90 * time.Second
}

// await waits until ok says so.
func (c *cluster) await(what string, ok func() bool) {
	c.t.Helper()
	c.awaitFor(c.patience(), what, ok)
}

func (c *cluster) awaitFor(patience time.Duration, what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited %v in vain for: %s", patience, what)
		}
	}
}

// Some interleavings hang a bubble for good: a goroutine that waits for one of
// the client's locks keeps fake time from passing, and the lock's owner waits
// for time to pass. Built with -tags synctests, the client has locks that do
// not. Without the tag, what makes it certain to happen (several members in a
// group) is skipped, and else a bubble in which time stands still is given up,
// at once when all wait for locks, and the scenario tried again in a new one. A scenario that only ever hangs
// fails, and so does the whole suite when more than a few do: see TestMain.
const (
	stillness = 40 // seconds of the real clock without a step of the fake one
	tries     = 3
)

var bubbles, hung, skipped atomic.Int64

// severalMembers skips, where it would hang, a scenario with more than one
// member in a group.
func severalMembers(t *testing.T) {
	t.Helper()
	if !channelLocks && os.Getenv(brokersVar) == "" {
		skipped.Add(1)
		t.Skip("several members in a bubble: needs -tags synctests")
	}
}

// alone keeps a test from going on beside others.
func alone(t *testing.T) { parallel.Store(t, true) }

// inBubble runs f in a bubble.
func inBubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	besideOthers(t)
	for range tries {
		bubbles.Add(1)
		var b bubble
		if b.run(t, f) {
			return
		}
		hung.Add(1)
		t.Logf("the bubble hangs, trying another (%d of %d so far); what keeps its time from passing:\n%s",
			hung.Load(), bubbles.Load(), b.goroutines(false))
	}
	t.Fatalf("%d bubbles in a row hang", tries)
}

// bubble is a synctest bubble that is watched from outside.
type bubble struct {
	mark  atomic.Pointer[string] // how it is called in the stacks of its goroutines
	steps atomic.Int64
}

// run runs f in the bubble and reports whether that came to an end.
func (b *bubble) run(t *testing.T, f func(*testing.T)) (ended bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil { // the test has ended, and others in its bubble have not
				t.Errorf("%v\n%s", r, b.goroutines(true))
			}
		}()
		synctest.Test(t, func(t *testing.T) {
			header := make([]byte, 200)
			header = header[:runtime.Stack(header, false)]
			mark := string(regexp.MustCompile(`synctest bubble \d+`).Find(header))
			b.mark.Store(&mark)
			stop := make(chan struct{})
			defer close(stop)
			go count(&b.steps, stop)
			f(t)
		})
	}()
	last := int64(-1)
	for still := 0; still < stillness; still++ {
		select {
		case <-done:
			return true
		case <-time.After(time.Second):
			if now := b.steps.Load(); now != last {
				last, still = now, 0
			} else if still > 1 && b.locked() {
				return false
			}
		}
	}
	return false
}

// locked reports whether nobody in the bubble can go on: whoever keeps its time
// from passing waits for a lock. A bubble on a busy machine is only slow.
func (b *bubble) locked() bool {
	for stack := range strings.SplitSeq(b.goroutines(false), "\n\n") {
		if state, _, _ := strings.Cut(stack, "\n"); !strings.Contains(state, "[sync.") {
			return false
		}
	}
	return true
}

// count counts the steps of fake time.
func count(steps *atomic.Int64, stop chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			steps.Add(1)
		case <-stop:
			return
		}
	}
}

// goroutines returns the stacks of the goroutines of the bubble that keep its
// time from passing, those that wait for a lock or are busy without end, or of
// all.
func (b *bubble) goroutines(all bool) string {
	buf := make([]byte, 16<<20)
	var found []string
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		state, _, _ := strings.Cut(stack, "\n")
		if strings.Contains(state, *b.mark.Load()+"]") && (all || !strings.Contains(state, "durable")) {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}

// TestMain fails a suite of which more than one bubble in twenty hung: that is
// no longer the client's locks.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // thousands of short lives, and memory enough
	code := m.Run()
	if n := skipped.Load(); n > 0 {
		fmt.Printf("%d tests were skipped; run them with -tags synctests\n", n)
	}
	if n, of := hung.Load(), bubbles.Load(); n > 0 {
		fmt.Printf("%d of %d bubbles hung and were run again\n", n, of)
		if n > 1+of/20 {
			code = 1
		}
	}
	os.Exit(code)
}
