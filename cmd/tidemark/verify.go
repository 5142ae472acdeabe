package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
)

func newVerifyCommand() *cobra.Command {
	var topics, from []string
	var group string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the ordered and late topics keep what Tidemark promises",
		Long: `Read the source topics and what came out of them, and check that every record came
out once, unchanged, in its partition and in order, that all watermark headers told
the truth, and that what is late is late. It may run beside ` + "`tidemark run`" + ` and changes
nothing. The exit code is 0 if the contract holds, 3 if not, and 1 if verify cannot tell,
because an open transaction hides what may be missing, or cannot check at all.

It needs the configuration of the run that it checks. A record without a header that
TIDEMARK_HEADERS asks for is a violation, unless it is too large for it. If there are
records from before TIDEMARK_HEADERS asked for a header, tell verify from where on with
--from, or give it the TIDEMARK_HEADERS of then: what else a record carries is checked all
the same.

Event times are judged as TIDEMARK_EVENT_TIME has them. The commits say from which offset
and epoch on that has been so. What came out before is compared byte for byte, counted, and
not judged by event time; so are the epochs before a reset that left no commit to say how
their event times were made. If it was as now, --from epoch:0 has all of them judged. A
later --from has less judged: for what was written before the commits said it.

What is gone from a topic cannot be compared with. Outputs whose source record is gone
are counted as expired, source records whose output may be gone as unproven; neither is
a violation. docs/operations.md explains all counts and violations.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := verifyConfig(topics, group)
			if err != nil {
				return err
			}
			var o verify.Options
			if err := judgeFrom(from, &o); err != nil {
				return &exitError{exitUsage, err, "see `tidemark verify --help`"}
			}
			reports, fits, err := verifyFrom(cmd.Context(), cfg, o)
			if err != nil {
				return &exitError{exitFailed, fmt.Errorf("verify: %w", err), verifyHint(cfg, err)}
			}
			return showReports(cmd.OutOrStdout(), cfg, reports, fits, asJSON)
		},
	}
	cmd.Flags().StringArrayVar(&topics, "topic", nil, "source topic to check, may be repeated (default TIDEMARK_TOPICS)")
	cmd.Flags().StringVar(&group, "group", "", "consumer group to check (default TIDEMARK_GROUP)")
	cmd.Flags().StringArrayVar(&from, "from", nil, "judge event times, repeats and headers from here on: a source offset, PARTITION:OFFSET, epoch:N, or a time of the source's timestamps (RFC 3339); may be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "show the reports as JSON")
	return cmd
}

// verifyConfig puts the flags in the place of their variables.
func verifyConfig(topics []string, group string) (config.Config, error) {
	environ := config.WithoutAdmin(os.Environ())
	if len(topics) > 0 {
		environ = append(environ, "TIDEMARK_TOPICS="+strings.Join(topics, ","))
	}
	if group != "" {
		environ = append(environ, "TIDEMARK_GROUP="+group)
	}
	return config.Load(environ)
}

func verifyOutputs(ctx context.Context, cfg config.Config) ([]verify.Report, error) {
	reports, _, err := verifyFrom(ctx, cfg, verify.Options{})
	return reports, err
}

// verifyFrom verifies from where o says; everything else in it comes from the configuration.
// It also returns, by topic, how event times fit other clocks.
func verifyFrom(ctx context.Context, cfg config.Config, o verify.Options) ([]verify.Report, map[string]*misfitting, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := cfg.ClientOpts(func(error) {})
	if err != nil {
		return nil, nil, err
	}
	cl, err := kgo.NewClient(append(opts, kgo.RetryTimeout(config.Patience))...)
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	eventTime, done, err := config.EventTimes(ctx, cfg, giveUp)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	eventTime = verify.UnknownWhere(eventTime, timestamp.ErrPrevious)
	o.Group, o.Prefix, o.AtLeastOnce = cfg.Group, cfg.HeaderPrefix, cfg.Delivery == config.AtLeastOnce
	o.Required = emit.Headers{
		Watermark: cfg.Headers.Watermark, SourceOffset: cfg.Headers.SourceOffset, EventTime: cfg.Headers.EventTime,
	}
	o.Unnamed = !cfg.Headers.SourceOffset
	o.Identity, o.Dropped = cfg.Dedup.Identity, cfg.Duplicates == config.DropDuplicates
	var schemaID func(*kgo.Record) (string, bool)
	if cfg.EventTime.NeedsSchemas() {
		schemaID = func(r *kgo.Record) (string, bool) {
			id, ok := cfg.EventTime.SchemaOf(r)
			return id.String(), ok
		}
	}
	fits := map[string]*misfitting{}
	for _, t := range cfg.Topics {
		fits[t] = &misfitting{}
		o.Topics = append(o.Topics, verify.Topic{
			Source: t, Ordered: cfg.OrderedTopic(t), Late: cfg.LateTopic(t),
			EventTime: fits[t].watch(eventTime), SchemaID: schemaID, Fingerprint: cfg.EventTime.Fingerprint(),
		})
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar := newBar("verify")
		defer bar.Finish()
		o.Progress = func(done, total int64) {
			bar.ChangeMax64(total)
			_ = bar.Set64(done)
		}
	}
	reports, err := verify.Run(ctx, cl, o)
	if m, ok := errors.AsType[*verify.MissingTopicError](err); ok {
		err = fault.Failed(err, missingHint(ctx, cl, cfg, m))
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return reports, fits, err
}

// missingHint says what a topic that does not exist may be about.
func missingHint(ctx context.Context, cl *kgo.Client, cfg config.Config, m *verify.MissingTopicError) string {
	if slices.Contains(cfg.Topics, m.Name) {
		return preflight.Nearest(ctx, kadm.NewClient(cl), m.Name) + "check TIDEMARK_TOPICS, or --topic, and where TIDEMARK_BROKERS leads"
	}
	return "`tidemark run` creates the outputs when it starts: verify again when it has run; if it has, check that TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX are those of that run"
}

// judgeFrom reads the values of --from.
func judgeFrom(values []string, o *verify.Options) error {
	for _, text := range values {
		kind, rest, two := strings.Cut(text, ":")
		offset, notOffset := strconv.ParseInt(text, 10, 64)
		n, notNumber := strconv.ParseInt(rest, 10, 64)
		partition, notPartition := strconv.ParseInt(kind, 10, 32)
		at, notTime := time.Parse(time.RFC3339, text)
		switch {
		case notOffset == nil && offset >= 0:
			o.From.Offset = offset
		case two && kind == "epoch" && notNumber == nil && n >= 0:
			o.From.Epoch, o.From.Told = n, true
		case two && notPartition == nil && partition >= 0 && notNumber == nil && n >= 0:
			if o.FromOffsets == nil {
				o.FromOffsets = map[int32]int64{}
			}
			o.FromOffsets[int32(partition)] = n
		case notTime == nil:
			o.FromTime = at
		default:
			return fmt.Errorf("--from %q is neither an offset, PARTITION:OFFSET, epoch:N, nor a time such as 2026-11-30T12:00:00Z", text)
		}
	}
	return nil
}

// newBar returns a progress bar over offsets.
func newBar(what string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(
		1,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionSetItsString("offsets"),
		progressbar.OptionShowIts(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

func verifyHint(cfg config.Config, err error) string {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Advice != "" {
		return f.Advice
	}
	switch {
	case errors.Is(err, verify.ErrNoCommit):
		return "check that this is the group of `tidemark run`, and that it has run on this topic; if its offsets are gone, `tidemark position rebuild` makes them again from the outputs"
	case errors.Is(err, verify.ErrReset), errors.Is(err, scan.ErrDeleted):
		return "verify again; it has tried more than once by itself"
	case errors.Is(err, verify.ErrPartitions):
		return "`tidemark run` logs the command that gives the outputs the partitions they lack; verify again when it has committed for them"
	case errors.Is(err, kerr.UnstableOffsetCommit):
		return "a transaction that holds the group's offsets does not end: start `tidemark run`, which ends those of its dead instances, or find it (" +
			fault.CommandsFor(cfg).Line("kafka-transactions", "list") + "), and verify again"
	case errors.Is(err, scan.ErrRemote):
		return "see whether the brokers reach their remote storage, and verify again"
	case errors.Is(err, scan.ErrShort):
		return "see whether a broker is away or an unclean election has cut the log, and verify again"
	case errors.Is(err, reorder.ErrNewer):
		return "verify with the version that `tidemark run` has"
	case errors.Is(err, verify.ErrNoIdentity):
		return "check that TIDEMARK_HEADERS and TIDEMARK_HEADER_PREFIX are those that the outputs were written with"
	case errors.Is(err, reorder.ErrFingerprint):
		return "to check what has come out, set TIDEMARK_EVENT_TIME as for the `tidemark run` that committed last; `tidemark run` does not go on with the present one while these records are held: to have them judged by it, `tidemark position new-epoch`, start it, and verify again"
	case errors.Is(err, verify.ErrOtherTimes):
		return "to check what has come out, set TIDEMARK_EVENT_TIME as for the `tidemark run` that committed last: since it was changed or updated nothing has come, so nothing is committed with the present one (`tidemark position show` shows by which each partition was). " +
			"Verify again when something has come; or, if what came out is wrong, have all of it again: stop the run, `tidemark position new-epoch --all --from earliest`, start it"
	case errors.Is(err, reorder.ErrRecreated):
		return "the topic was created again since `tidemark run` last committed: begin a new epoch (`tidemark position new-epoch --from earliest`), and verify when `tidemark run` has committed"
	case errors.Is(err, reorder.ErrForeign):
		return "`tidemark position show` shows what is committed: by hand, or by another program in this group. `tidemark position rebuild` makes the position again from the outputs; verify again then"
	}
	return fault.ReadHint(cfg, err)
}
