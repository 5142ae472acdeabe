package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/admin"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

func newDemoCommand() *cobra.Command {
	var d demo
	var seed uint64
	var verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show what Tidemark does, in 15 seconds, with a built-in Kafka broker",
		Long: `Start a Kafka broker inside this process, send it some seconds of payments that are
out of order, run the sidecar on them, and have one and the same consumer read the
raw and the ordered topic. Then verify the outcome; the exit code is 0 only if that
holds. It touches nothing else and takes no notice of TIDEMARK_* variables.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second signal kills
			d.events = tellStory(seed)
			d.screen = newScreen(cmd.OutOrStdout(), cmd.ErrOrStderr())
			d.log = d.screen.logger(verbose)
			d.sidecar, d.verify = d.shown, verifyOutputs
			return d.run(ctx)
		},
	}
	cmd.Flags().Uint64Var(&seed, "seed", 1, "tell another story")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "keep broker, sidecar and its status page running until Ctrl-C, to look at them")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show what the sidecar logs, not only errors")
	return cmd
}

// demo is one performance.
type demo struct {
	events  []storyEvent
	keep    bool
	screen  *screen
	log     *slog.Logger // the sidecar's
	sidecar func(context.Context, config.Config, *slog.Logger) error
	verify  func(context.Context, config.Config) ([]verify.Report, error)

	page         net.Listener // of the status page; nil: there is none
	cfg          config.Config
	raw, ordered *billing
	witness      witness
	seen         progress // when the story was over
}

func (d *demo) run(ctx context.Context) error {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(storyPartitions, storyTopic))
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	defer cluster.Close()
	broker := cluster.ListenAddrs()[0]
	if d.cfg, err = demoConfig(broker); err != nil {
		return err
	}
	if d.keep {
		d.cfg.Admin = "127.0.0.1:0" // any port that is free
	}
	if d.page, err = admin.Listen(d.cfg); err != nil {
		return err
	}
	if d.page != nil {
		defer d.page.Close()
	}
	cast := newCast(ctx)
	err = d.perform(cast, broker)
	if failure := cast.stop(); failure != nil {
		err = failure
	}
	if err != nil || ctx.Err() != nil {
		d.screen.freeze()
	}
	return err
}

// shown runs the proxy, with its status page if there is one.
func (d *demo) shown(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	board := status.NewPublisher(thisBuild().Version)
	defer admin.Serve(d.page, cfg, board, log)()
	return runProxy(ctx, cfg, log, board)
}

// demoConfig is what a user would set, and nothing of what the user has set.
func demoConfig(broker string) (config.Config, error) {
	return config.Load([]string{
		"TIDEMARK_BROKERS=" + broker,
		"TIDEMARK_TOPICS=" + storyTopic,
		"TIDEMARK_INSTANCE=demo",
		"TIDEMARK_ADMIN=off",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=" + storyBound.String(),
		"TIDEMARK_IDLE_TIMEOUT=" + storyIdle.String(),
	})
}

// perform runs the sidecar, tells the story, and shows what became of it.
func (d *demo) perform(c *cast, broker string) error {
	d.opening()
	c.add("the sidecar", func(ctx context.Context) error { return d.sidecar(ctx, d.cfg, d.log) })
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := awaitSidecar(c.ctx, kadm.NewClient(cl), d.cfg.Group); err != nil {
		return err
	}
	reports, err := d.play(c.ctx, cl, broker)
	if err != nil {
		return err
	}
	d.summary(reports)
	if d.keep {
		d.keeping(broker)
		<-c.ctx.Done()
	}
	if !d.holds(reports) {
		return &exitError{exitNotHeld, errors.New("the proof does not hold"), ""}
	}
	return nil
}

// play tells the story to the consumers, and verifies what came of it.
func (d *demo) play(ctx context.Context, cl *kgo.Client, broker string) ([]verify.Report, error) {
	audience := newCast(ctx)
	d.attend(audience, broker)
	err := d.tell(audience.ctx, cl)
	if failure := audience.stop(); failure != nil {
		return nil, failure
	}
	if err != nil {
		return nil, err
	}
	reports, err := d.verify(ctx, d.cfg)
	switch {
	case ctx.Err() != nil:
		return nil, stopped(ctx)
	case err != nil:
		return nil, fmt.Errorf("verify: %w", err)
	}
	return reports, nil
}

// awaitSidecar waits until the sidecar has all partitions. The first thing
// that it does with them is to commit where it begins.
func awaitSidecar(ctx context.Context, adm *kadm.Client, group string) error {
	for {
		commits, err := adm.FetchOffsets(ctx, group)
		if err == nil && len(commits[storyTopic]) == storyPartitions {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return stopped(ctx)
		}
	}
}

// attend starts one consumer twice: all that differs is the name of the topic.
func (d *demo) attend(c *cast, broker string) {
	ordered, late := d.cfg.OrderedTopic(storyTopic), d.cfg.LateTopic(storyTopic)
	d.raw, d.ordered = newBilling(), newBilling()
	c.add("the consumer of "+storyTopic, func(ctx context.Context) error { return d.raw.run(ctx, broker, storyTopic) })
	c.add("the consumer of "+ordered, func(ctx context.Context) error { return d.ordered.run(ctx, broker, ordered) })
	c.add("the reader of the outputs", func(ctx context.Context) error { return d.witness.run(ctx, broker, ordered, late) })
}

// total adds up the reports of all partitions.
func total(reports []verify.Report) (sum verify.Report) {
	for _, r := range reports {
		sum.Add(r)
	}
	return sum
}

// holds reports whether the contract holds, and held for the whole story.
func (d *demo) holds(reports []verify.Report) bool {
	found := total(reports)
	return found.Holds() && found.Buffered == 0 && found.Read == int64(len(d.events)) &&
		d.seen.done() && d.seen.ordered.stale == 0
}
