package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/position"
	"github.com/tidemarkhq/tidemark/watermark"
)

func newPositionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "position",
		Short: "Show, save, restore or remake the position of a group",
		Long: `The position of a group is what it has committed: for each partition an offset, and as
its metadata the state that goes with it. Kafka's tools set offsets without metadata, and
Tidemark does not go on from those; these commands are the way back.

What changes a position shows what it would do and asks first. It refuses while the group
has members, and needs the configuration of the run whose position it is. See
docs/starting-over.md.`,
		Args: func(cmd *cobra.Command, args []string) error {
			err := knownCommand(cmd, args)
			if err != nil && !errors.As(err, new(*exitError)) {
				return &exitError{exitUsage, err, positionCommands}
			}
			return err
		},
		RunE: func(*cobra.Command, []string) error {
			return &exitError{exitUsage, errors.New("nothing to do"), positionCommands}
		},
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(newPositionShowCommand(), newPositionExportCommand(), newPositionRestoreCommand(), newPositionRebuildCommand(), newPositionNewEpochCommand())
	return cmd
}

const positionCommands = "say what: show, export, restore, rebuild or new-epoch"

// positionFlags are common to all of them.
type positionFlags struct {
	topics     []string
	group      string
	partitions []string
	all        bool
	yes        bool
}

func (f *positionFlags) read(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.topics, "topic", nil, "source topic, may be repeated (default TIDEMARK_TOPICS)")
	cmd.Flags().StringVar(&f.group, "group", "", "consumer group (default TIDEMARK_GROUP)")
}

func (f *positionFlags) change(cmd *cobra.Command) {
	f.read(cmd)
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
}

func (f *positionFlags) choose(cmd *cobra.Command) {
	f.change(cmd)
	cmd.Flags().StringArrayVar(&f.partitions, "partition", nil, "`TOPIC/N`, may be repeated (default all from which no run would go on)")
	cmd.Flags().BoolVar(&f.all, "all", false, "all partitions")
}

// which returns the partitions that are named.
func (f *positionFlags) which() (position.Which, error) {
	w := position.Which{All: f.all}
	for _, name := range f.partitions {
		slash := strings.LastIndexByte(name, '/')
		n, err := strconv.ParseInt(name[slash+1:], 10, 32)
		if slash < 1 || err != nil || n < 0 {
			return w, &exitError{exitUsage, fmt.Errorf("--partition: %q is not TOPIC/N", name), "like orders/0"}
		}
		if w.Only == nil {
			w.Only = position.Partitions{}
		}
		w.Only[name[:slash]] = append(w.Only[name[:slash]], int32(n))
	}
	if f.all && w.Only != nil {
		return w, &exitError{exitUsage, errors.New("--all and --partition exclude each other"), ""}
	}
	return w, nil
}

// with opens what looks at positions and calls do.
func (f *positionFlags) with(ctx context.Context, do func(context.Context, *position.Tool) error) error {
	environ := config.WithoutAdmin(os.Environ())
	if len(f.topics) > 0 {
		environ = append(environ, "TIDEMARK_TOPICS="+strings.Join(f.topics, ","))
	}
	if f.group != "" {
		environ = append(environ, "TIDEMARK_GROUP="+f.group)
	}
	cfg, err := config.Load(environ)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from here on a signal kills, also where a question waits for its answer
	reporter := fault.NewReporter(newLogger(os.Stderr, cfg))
	opts, err := cfg.ClientOpts(reporter.StaleFile)
	if err != nil {
		return fault.Usage(err, "")
	}
	cl, err := kgo.NewClient(append(opts, kgo.RetryTimeout(config.Patience), kgo.MaxDecompressBatchBytes(group.DecompressLimit(int64(cfg.Memory))))...)
	if err != nil {
		return fault.Usage(err, "")
	}
	defer cl.Close()
	t := &position.Tool{
		Config: cfg, Client: cl, Reporter: reporter, WallClock: time.Now,
		Waits: func(what string) { fmt.Fprintln(os.Stderr, "tidemark: "+what) },
	}
	if err = t.Open(ctx); err == nil {
		err = do(ctx, t)
	}
	if errors.As(err, new(*exitError)) {
		return err
	}
	return t.Explain(err)
}

func newPositionShowCommand() *cobra.Command {
	var f positionFlags
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what is committed, and whether a run would go on from it",
		Long: `Show the position of every partition, and whether a run with this configuration would go
on from it, or begin there. It may run beside ` + "`tidemark run`" + `. The exit code is 3 if there is
a partition from which no run would go on.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, t *position.Tool) error {
				views, err := t.Show(ctx)
				if err != nil {
					return err
				}
				return showPositions(cmd.OutOrStdout(), views)
			})
		},
	}
	f.read(cmd)
	return cmd
}

func newPositionExportCommand() *cobra.Command {
	var f positionFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the position as JSON, for restore",
		Long: `Write what is committed as JSON to the standard output, for ` + "`tidemark position restore`" + `.
It may run beside ` + "`tidemark run`" + `, but only an export of a group that has stopped can be
restored, as long as nothing has come out since.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(ctx context.Context, t *position.Tool) error {
				file, err := t.Export(ctx)
				if err != nil {
					return err
				}
				return writeJSON(cmd.OutOrStdout(), file)
			})
		},
	}
	f.read(cmd)
	return cmd
}

func newPositionRestoreCommand() *cobra.Command {
	var f positionFlags
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Write an export back",
		Long: `Commit what ` + "`tidemark position export`" + ` wrote. It refuses an export of another group,
cluster or topic, and one after which the outputs have changed.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return &exitError{exitUsage, errors.New("the file to restore is missing"), "say which, as `tidemark position export` wrote it: tidemark position restore position.json"}
			case len(args) > 1:
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := os.Open(args[0])
			if err != nil {
				return &exitError{exitUsage, err, ""}
			}
			defer in.Close()
			file, err := position.ReadFile(in)
			if err != nil {
				return err
			}
			return f.with(cmd.Context(), func(ctx context.Context, t *position.Tool) error {
				plan, err := t.PlanRestore(ctx, file)
				return f.apply(ctx, cmd, t, plan, err)
			})
		},
	}
	f.change(cmd)
	return cmd
}

func newPositionRebuildCommand() *cobra.Command {
	var f positionFlags
	origin := int64(-1)
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make the position again from what came out",
		Long: `Read both outputs and the source, and make the position again: whatever of the source is
in neither output is still owed. Afterwards ` + "`tidemark run`" + ` goes on as if nothing had
happened: nothing is lost, nothing comes out twice, and there is no new epoch.

It judges by TIDEMARK_EVENT_TIME as it is now. It refuses where the outputs do not say
enough: they were written without the header tidemark-source-offset or with
TIDEMARK_DELIVERY=at-least-once, retention has taken too much of them, or their headers
show that what is held was judged by other event times. Then begin a new epoch.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			which, err := f.which()
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("origin") && origin < 0 {
				return &exitError{exitUsage, fmt.Errorf("--origin: %d is negative", origin), ""}
			}
			return f.with(cmd.Context(), func(ctx context.Context, t *position.Tool) error {
				plan, err := t.PlanRebuild(ctx, which, origin)
				return f.apply(ctx, cmd, t, plan, err)
			})
		},
	}
	f.choose(cmd)
	cmd.Flags().Int64Var(&origin, "origin", -1, "offset at which the group, or its last new epoch, began; the log said so\n(default the beginning of the source)")
	cmd.Flags().Lookup("origin").DefValue = "0" // what the default means is said above
	return cmd
}

func newPositionNewEpochCommand() *cobra.Command {
	var f positionFlags
	var from string
	cmd := &cobra.Command{
		Use:   "new-epoch",
		Short: "Begin a new epoch at a chosen place of the source",
		Long: `Begin anew at a chosen place of the source: what is read from there on is judged by the
present configuration, and what comes out has a new epoch, in which order and watermarks
begin anew. What the outputs hold from there on comes out a second time. What is below
that place and has not come out never will.`,
		Example: `  tidemark position new-epoch
  tidemark position new-epoch --all --from 2026-03-01T00:00:00Z`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			which, err := f.which()
			if err != nil {
				return err
			}
			at, err := parseFrom(from)
			if err != nil {
				return err
			}
			return f.with(cmd.Context(), func(ctx context.Context, t *position.Tool) error {
				plan, err := t.PlanNewEpoch(ctx, which, at)
				return f.apply(ctx, cmd, t, plan, err)
			})
		},
	}
	f.choose(cmd)
	cmd.Flags().StringVar(&from, "from", "committed", "where: committed (the first record that is still owed), earliest,\nlatest, an offset, or a time")
	return cmd
}

// parseFrom reads where a new epoch begins.
func parseFrom(text string) (position.From, error) {
	at := position.From{Offset: -1}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err == nil && n >= 0:
		at.Offset = n
		return at, nil
	case text == "committed":
		at.Committed = true
		return at, nil
	}
	if _, err := time.Parse(time.DateOnly, text); err == nil {
		return at, &exitError{exitUsage, fmt.Errorf("--from: %q has no time of day", text), "for midnight in UTC: " + text + "T00:00:00Z"}
	}
	if err := at.Start.UnmarshalText([]byte(text)); err != nil || at.Start.Kind == config.StartGroup || n < 0 {
		return at, &exitError{exitUsage, fmt.Errorf("--from: %q is no place to begin", text), "known: committed, earliest, latest, an offset, a time (like 2006-01-02T15:04:05Z)"}
	}
	return at, nil
}

// apply shows a plan, asks, and carries it out.
func (f *positionFlags) apply(ctx context.Context, cmd *cobra.Command, t *position.Tool, plan *position.Plan, err error) error {
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if len(plan.Steps) == 0 {
		_, err := fmt.Fprintln(out, nothingToDo(plan))
		return err
	}
	if err := showPlan(out, plan); err != nil {
		return err
	}
	if !f.yes {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return &exitError{exitUsage, errors.New("nothing was changed: there is nobody to ask"), "to carry this out, add --yes"}
		}
		if !confirmed(os.Stdin, os.Stderr) {
			return &exitError{exitFailed, errors.New("nothing was changed"), ""}
		}
	}
	if err := t.Apply(ctx, plan); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "committed; start `tidemark run` now")
	return err
}

// nothingToDo says why a plan is empty, and what there is to do all the same.
func nothingToDo(plan *position.Plan) string {
	const goesOn = "nothing to do: a run would go on from every partition's position (--all or --partition chooses others)"
	switch plan.Verb {
	case "restore":
		return "nothing to do: the export has no partition of these topics"
	case "new-epoch":
		return goesOn + "\nwhat has come out stays; to have all of it again, by the configuration of now: `tidemark position new-epoch --all --from earliest`"
	}
	return goesOn
}

// confirmed asks.
func confirmed(in io.Reader, out io.Writer) bool {
	fmt.Fprint(out, "Commit this? [y/N] ")
	answer, _ := bufio.NewReader(in).ReadString('\n')
	return slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer)))
}

func showPlan(w io.Writer, plan *position.Plan) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "partition\toffset now\toffset then\tread up to\theld\twatermark\tepoch\t")
	for i := range plan.Steps {
		s := &plan.Steps[i]
		fmt.Fprintf(out, "%s/%d\t%s\t%d\t%d\t%d\t%s\t%d\t\n", s.Topic, s.Partition, offsetOrNone(s.Was.Commit.Offset), s.Commit.Offset,
			s.Snapshot.Next, s.Snapshot.Count, timeOrNone(s.Snapshot.W), s.Snapshot.Epoch)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var notes []string // each once, with all that it is about
	about := map[string][]string{}
	for _, s := range plan.Steps {
		if s.Note != "" && about[s.Note] == nil {
			notes = append(notes, s.Note)
		}
		about[s.Note] = append(about[s.Note], fmt.Sprintf("%s/%d", s.Topic, s.Partition))
	}
	for _, note := range notes {
		if _, err := fmt.Fprintf(w, "%s: %s\n", strings.Join(about[note], " "), note); err != nil {
			return err
		}
	}
	return nil
}

// showPositions writes what is committed and returns the error for the exit code.
func showPositions(w io.Writer, views []position.View) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "partition\tcommitted (L)\tnext (H)\tend\theld\twatermark (W)\tnewest\tepoch\torigin\trelease at\tevent times\ttopic\t")
	unusable := false
	for i := range views {
		v := &views[i]
		unusable = unusable || v.Err != nil
		fmt.Fprintf(out, "%s/%d\t%s\t", v.Topic, v.Partition, offsetOrNone(v.Commit.Offset))
		if !v.Readable {
			fmt.Fprintf(out, "-\t%d\t-\t-\t-\t-\t-\t-\t-\t-\t\n", v.End)
			continue
		}
		s := &v.Snapshot
		release := "-"
		if s.Releasing {
			release = fmt.Sprintf("%s, offset %d", timeOrNone(s.Frontier.Time), s.Frontier.Offset)
		}
		fmt.Fprintf(out, "%d\t%d\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t\n", s.Next, v.End, s.Count, timeOrNone(s.W), timeOrNone(s.Max), s.Epoch, s.Origin, release,
			writtenBy(v), oneOf(v.SameTopic(), "the same", "an earlier one"))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var advice []string // each once
	for _, v := range views {
		said := ""
		switch {
		case v.Err != nil:
			said = fmt.Sprintf("no run goes on from here: %v", v.Err)
			if !slices.Contains(advice, v.Advice) {
				advice = append(advice, v.Advice)
			}
		case v.Begins && v.Commit.Offset < 0:
			said = "nothing is committed and nothing has come out: a run begins here"
		case v.Begins:
			said = "the offset was committed without metadata and nothing has come out: a run begins here"
		default:
			continue
		}
		if _, err := fmt.Fprintf(w, "%s/%d: %s\n", v.Topic, v.Partition, said); err != nil {
			return err
		}
	}
	for _, what := range advice {
		if _, err := fmt.Fprintf(w, "hint: %s\n", what); err != nil {
			return err
		}
	}
	if unusable {
		return &exitError{exitNotHeld, nil, ""}
	}
	return nil
}

// writtenBy says by which event times a position was written.
func writtenBy(v *position.View) string {
	switch {
	case v.Times == position.TimesOfNow:
		return "as now"
	case v.Times == position.TimesOfEarlier:
		return "as an earlier version"
	case v.Snapshot.Count == 0:
		return "others (nothing held)"
	}
	return "others"
}

func oneOf(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func offsetOrNone(offset int64) string {
	if offset < 0 {
		return "none"
	}
	return strconv.FormatInt(offset, 10)
}

func timeOrNone(t watermark.Time) string {
	if t == watermark.None {
		return "none"
	}
	ms := t.Millis()
	return eventTime(&ms)
}
