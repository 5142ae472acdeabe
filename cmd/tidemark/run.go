package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/admin"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// runProxy is a variable so that tests can replace it with a failure.
var runProxy = proxy.RunOn

// heapShare is the share of a container's memory limit that is the Go runtime's soft limit.
// Near it the collector works harder; without it, the kernel would kill the process.
const heapShare = 0.9

func newRunCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Bring the source topics into order until stopped",
		Long: `Read the source topics and republish their records in order of event time, until
SIGTERM or SIGINT. A second signal ends the process at once.

It is configured by environment variables; only TIDEMARK_TOPICS is required.
See them with ` + "`tidemark config --docs`, and what is in effect with `tidemark config`.",
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context()) },
	}
}

func run(ctx context.Context) error {
	cfg, err := config.Load(os.Environ())
	if err != nil {
		return err
	}
	// Outside a container there is no limit to keep to, which is no error.
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(heapShare))
	boundGarbage()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from here on a signal kills, as if we had never asked
	log, board := newLogger(os.Stderr, cfg), status.NewPublisher(thisBuild().Version)
	port, err := admin.Listen(cfg)
	if err != nil {
		return err
	}
	defer admin.Serve(port, cfg, board, log)()
	err = runProxy(ctx, cfg, log, board)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // we were told to stop, and did
	}
	return err
}
