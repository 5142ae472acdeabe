package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
)

func newVerifyCommand() *cobra.Command {
	var topics []string
	var group string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the ordered and late topics keep what Tidemark promises",
		Long: `Read the source topics and what came out of them, and check that every record came
out once, unchanged, in its partition and in order, that all watermark headers told
the truth, and that what is late is late. It may run beside ` + "`tidemark run`" + ` and changes
nothing. The exit code is 0 if the contract holds and 3 if not.

It needs the configuration of the run that it checks. A record without a header that
TIDEMARK_HEADERS asks for is a violation, unless it is too large for it. If there are
records from before TIDEMARK_HEADERS asked for a header, give verify the TIDEMARK_HEADERS
of then: what else a record carries is checked all the same.

What is gone from a topic cannot be compared with. Outputs whose source record is gone
are counted as expired, source records whose output may be gone as unproven; neither is
a violation. docs/operations.md explains all counts and violations.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := verifyConfig(topics, group)
			if err != nil {
				return err
			}
			reports, err := verifyOutputs(cmd.Context(), cfg)
			if err != nil {
				return &exitError{exitFailed, fmt.Errorf("verify: %w", err), verifyHint(cfg, err)}
			}
			return showReports(cmd.OutOrStdout(), reports, asJSON)
		},
	}
	cmd.Flags().StringArrayVar(&topics, "topic", nil, "source topic to check, may be repeated (default TIDEMARK_TOPICS)")
	cmd.Flags().StringVar(&group, "group", "", "consumer group to check (default TIDEMARK_GROUP)")
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
	cfg, err := config.Load(environ)
	if err == nil && !cfg.Headers.SourceOffset {
		err = &exitError{
			exitUsage, errors.New("TIDEMARK_HEADERS has no source-offset, without which records cannot be matched with their source"),
			"verify needs outputs that were written with it",
		}
	}
	return cfg, err
}

func verifyOutputs(ctx context.Context, cfg config.Config) ([]verify.Report, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := cfg.ClientOpts(func(error) {})
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(opts, kgo.RetryTimeout(config.Patience))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	eventTime, done, err := config.EventTimes(ctx, cfg, giveUp)
	if err != nil {
		return nil, err
	}
	defer done()
	eventTime = verify.UnknownWhere(eventTime, timestamp.ErrPrevious)
	o := verify.Options{
		Group: cfg.Group, Prefix: cfg.HeaderPrefix, AtLeastOnce: cfg.Delivery == config.AtLeastOnce,
		Required: emit.Headers{
			Watermark: cfg.Headers.Watermark, SourceOffset: cfg.Headers.SourceOffset, EventTime: cfg.Headers.EventTime,
		},
		Identity: cfg.Dedup.Identity, Dropped: cfg.Duplicates == config.DropDuplicates,
	}
	var schemaID func([]byte) (uint32, bool)
	if cfg.EventTime.NeedsSchemas() {
		schemaID = timestamp.SchemaID
	}
	for _, t := range cfg.Topics {
		o.Topics = append(o.Topics, verify.Topic{
			Source: t, Ordered: cfg.OrderedTopic(t), Late: cfg.LateTopic(t),
			EventTime: eventTime, SchemaID: schemaID, Fingerprint: cfg.EventTime.Fingerprint(),
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
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return reports, err
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
	switch {
	case errors.Is(err, verify.ErrNoCommit):
		return "check that this is the group of `tidemark run`, and that it has run on this topic"
	case errors.Is(err, verify.ErrNoIdentity):
		return "check that TIDEMARK_HEADERS and TIDEMARK_HEADER_PREFIX are those that the outputs were written with"
	case errors.Is(err, reorder.ErrFingerprint):
		return "set TIDEMARK_EVENT_TIME as for `tidemark run`"
	case errors.Is(err, reorder.ErrRecreated):
		return "the topic was created again since `tidemark run` last committed; verify can check it after the next commit of `tidemark run`"
	case errors.Is(err, reorder.ErrForeign):
		return "check whether another program commits for this group"
	}
	return fault.ReadHint(cfg, err)
}

// topicReport is one topic in the JSON that is shown.
type topicReport struct {
	verify.Report
	Partitions []verify.Report `json:"partitions"`
}

// byTopic adds the partitions up; they come topic by topic.
func byTopic(reports []verify.Report) []topicReport {
	var topics []topicReport
	for _, r := range reports {
		if n := len(topics); n == 0 || topics[n-1].Topic != r.Topic {
			topics = append(topics, topicReport{})
		}
		t := &topics[len(topics)-1]
		t.Add(r)
		t.Partitions = append(t.Partitions, r)
	}
	return topics
}

// showReports writes the result and returns the error for the exit code.
func showReports(w io.Writer, reports []verify.Report, asJSON bool) error {
	topics := byTopic(reports)
	holds := !slices.ContainsFunc(reports, func(r verify.Report) bool { return !r.Holds() })
	var err error
	if asJSON {
		err = writeJSON(w, struct {
			Holds  bool          `json:"holds"`
			Topics []topicReport `json:"topics"`
		}{holds, topics})
	} else {
		err = writeReports(w, topics, holds)
	}
	if err == nil && !holds {
		err = &exitError{exitNotHeld, nil, ""}
	}
	return err
}

func writeReports(w io.Writer, topics []topicReport, holds bool) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, t := range topics {
		writeCounts(out, t.Report)
	}
	for _, t := range topics {
		for _, kind := range verify.Kinds {
			if f, ok := t.Faults[kind]; ok {
				writeFaults(out, t.Topic, kind, f)
			}
		}
	}
	verdict := "HOLDS"
	if !holds {
		verdict = "DOES NOT HOLD"
	}
	fmt.Fprintln(out, verdict)
	return out.Flush()
}

func writeCounts(w io.Writer, r verify.Report) {
	fmt.Fprintln(w, r.Topic)
	row := func(name string, n int64, what string) {
		if what != "" {
			what = "\t" + what
		}
		fmt.Fprintf(w, "  %s\t%d%s\n", name, n, what)
	}
	rare := func(name string, n int64, what string) {
		if n > 0 {
			row(name, n, what)
		}
	}
	late, reasons := int64(0), []string{}
	for _, why := range slices.Sorted(maps.Keys(r.Late)) {
		late += r.Late[why]
		reasons = append(reasons, fmt.Sprintf("%s %d", why, r.Late[why]))
	}
	row("read", r.Read, "")
	row("ordered", r.Ordered, watermarks(r.Watermark))
	row("late", late, strings.Join(reasons, ", "))
	rare("dropped", r.Dropped, "records that repeat an ordered one")
	row("buffered", r.Buffered, "")
	rare("expired", r.Expired, "output records whose source record is gone")
	rare("replayed", r.Replayed, "output records from before the group was last reset")
	rare("repeated", r.Repeated, "output records repeated, as at-least-once may")
	rare("bare", r.Bare, "output records too large to name their source record")
	rare("trimmed", r.Trimmed, "output records too large for other headers")
	rare("registered", r.Registered, "records late because the registry did not have their schema, which it has now")
	rare("unproven", r.Unproven, "records read whose output retention may have deleted")
	for _, gap := range verify.Gaps {
		rare("not judged", r.Unjudged[gap], gap.Why())
	}
	fmt.Fprintln(w)
}

func watermarks(r verify.Range) string {
	if !r.Any {
		return ""
	}
	stamp := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
	return "watermarks " + stamp(r.Min) + " to " + stamp(r.Max)
}

func writeFaults(w io.Writer, topic string, kind verify.Kind, faults verify.Faults) {
	fmt.Fprintf(w, "%s: %d %s\n", topic, faults.Total, kind)
	for _, f := range faults.First {
		fmt.Fprintf(w, "  partition %d\t%s\t%s\t%s\n", f.Partition, offsetName("offset", f.SourceOffset),
			offsetName(cmp.Or(f.Output, "in no output"), f.OutputOffset), f.Why)
	}
	if rest := faults.Total - int64(len(faults.First)); rest > 0 {
		fmt.Fprintf(w, "  and %d more\n", rest)
	}
	fmt.Fprintln(w)
}

func offsetName(name string, offset int64) string {
	if offset < 0 {
		return strings.TrimPrefix(name, "offset")
	}
	return fmt.Sprintf("%s %d", name, offset)
}
