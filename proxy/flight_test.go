package proxy

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/txn"
)

// openedSession returns a session on a topic as runSession makes it, for tests that
// look at what it owns. It does nothing before run.
func (c *cluster) openedSession(proc *process, topic string, env ...string) *session {
	c.t.Helper()
	cfg := c.config(topic, env...)
	connection := append(append([]kgo.Opt{kgo.Dialer(c.dial)}, c.connection...), group.PromptRetries()...)
	topics, err := preflight.Check(c.ctx, c.adm, c.adm, c.cl, cfg, cfg.EventTime, proc.reporter, proc.cluster)
	if err != nil {
		c.t.Fatal(err)
	}
	s := newSession(cfg, kadm.NewClient(c.cl), topics, proc)
	s.stopAt(c.ctx)
	if cfg.Delivery == config.AtLeastOnce {
		cl, err := kgo.NewClient(s.clientOpts(connection)...)
		if err != nil {
			c.t.Fatal(err)
		}
		s.use(cl, nil)
	} else {
		gts, err := kgo.NewGroupTransactSession(s.clientOpts(connection)...)
		if err != nil {
			c.t.Fatal(err)
		}
		s.use(gts.Client(), gts)
	}
	s.member.Start()
	return s
}

// A refusal that a flush in the midst of putting out comes to know of must not leave
// a flight behind that can never land: flights land in order, and the memory of none
// behind it would ever be used again.
func TestFlightsLandAfterRefusal(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		const limit = 4000 // what an output takes at once
		topic := c.topic(1, "max.message.bytes=1000000")
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			c.create(out, 1, "max.message.bytes=4000")
		}
		proc := newProcess(slog.New(slog.DiscardHandler))
		proc.limits.SizeAware = true // as after the first record that is larger than the output takes
		s := c.openedSession(proc, topic, noDrain, "TIDEMARK_DELIVERY=at-least-once", "TIDEMARK_COMMIT_INTERVAL=1s")
		ctx, end := context.WithCancel(c.ctx)
		s.stopAt(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx, context.WithoutCancel(ctx)) }()

		base, written := time.Now().Add(-time.Hour), 0
		write := func(n, size int) {
			var rs []*kgo.Record
			for range n {
				rs = append(rs, timed(topic, base, written, noise(size)))
				written++
			}
			c.produce(c.cl, rs...)
		}
		write(5, 10)
		c.await("the first commit", func() bool { return c.read(s.cfg) })
		refused := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic + ".ordered", Err: kerr.NotEnoughReplicas, Count: txn.ProduceTries + 1})
		write(10*limit/300, 300)
		c.await("all of them", func() bool { return c.read(s.cfg) })
		if refused.Hits() <= txn.ProduceTries {
			t.Fatalf("refused %d times", refused.Hits())
		}
		for range 10 {
			write(1024, 10)
			c.await("what comes after", func() bool { return c.read(s.cfg) })
		}
		end()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if n := s.writer.InFlight(); n > 2 {
			t.Errorf("%d batches are in flight, and all is committed", n)
		}
	})
}
