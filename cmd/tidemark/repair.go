package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/repair"
)

// repairTTL is the default of --ttl.
const repairTTL = 2 * time.Hour

func newRepairCommand() *cobra.Command {
	var o repair.Options
	var reasons string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Publish late records as corrections, in order of event time",
		Long: `Read the late topics from where the last repair ended to their ends, and publish what
was put there within the TTL, in order of event time per partition, to
<topic>.corrections, each record with the header tidemark-correction: true. Every late
record is corrected once, whatever happens; what is expired or late for another reason
stays on the late topic. It may be stopped at any moment, and needs the configuration
of the run that it repairs. See docs/repair.md.`,
		Example: `  tidemark repair --dry-run
  tidemark repair --every 10m`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Reasons, err = repair.ParseReasons(reasons); err != nil {
				return &exitError{exitUsage, fmt.Errorf("--reasons: %w", err), ""}
			}
			switch {
			case o.TTL < time.Millisecond:
				return &exitError{exitUsage, fmt.Errorf("--ttl: %v is not above 0", o.TTL), "like 2h"}
			case cmd.Flags().Changed("every") && o.Every <= 0:
				return &exitError{exitUsage, fmt.Errorf("--every: %v is not above 0", o.Every), "like 10m; to run once, leave it out"}
			case o.DryRun && o.Every > 0:
				return &exitError{exitUsage, errors.New("--dry-run and --every exclude each other"), ""}
			}
			o.Report = func(r repair.Report) error { return showRepair(cmd.OutOrStdout(), r, asJSON) }
			return runRepair(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.To, "to", "", "topic for the corrections (default the source topic's name with .corrections)")
	f.DurationVar(&o.TTL, "ttl", repairTTL, "correct only records written to the late topic within this time")
	f.StringVar(&reasons, "reasons", strings.Join(repair.Behind, ","), "correct what is late for these reasons, of\n"+strings.Join(repair.Reasons, ", "))
	f.DurationVar(&o.Every, "every", 0, "run again and again, beginning this long after the last beginning (default once)")
	f.BoolVar(&o.DryRun, "dry-run", false, "show what would be done, and write nothing")
	f.BoolVar(&asJSON, "json", false, "show the result of every run as JSON")
	return cmd
}

func runRepair(ctx context.Context, o repair.Options) error {
	cfg, err := config.Load(config.WithoutAdmin(os.Environ()))
	if err != nil {
		return err
	}
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(heapShare)) // see run
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from here on a signal kills
	log := newLogger(os.Stderr, cfg)
	if terminal := term.IsTerminal(int(os.Stderr.Fd())); terminal && o.Every == 0 {
		bar := &repairBar{}
		defer bar.finish()
		o.Progress = bar.show
		show := o.Report
		o.Report = func(r repair.Report) error { bar.finish(); return show(r) }
		log = newBarLogger(bar, cfg)
	}
	return repair.Run(ctx, cfg, o, log)
}

// repairBar is a progress bar that makes way for the log.
type repairBar struct {
	mu  sync.Mutex
	bar *progressbar.ProgressBar
}

func (b *repairBar) show(done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar == nil {
		b.bar = newBar("repair")
	}
	b.bar.ChangeMax64(max(total, 1))
	_ = b.bar.Set64(done)
}

func (b *repairBar) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		_ = b.bar.Finish()
		b.bar = nil
	}
}

// Write writes a line of the log in the place of the bar.
func (b *repairBar) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		_ = b.bar.Clear()
	}
	return os.Stderr.Write(line)
}

// showRepair writes what a run did.
func showRepair(w io.Writer, r repair.Report, asJSON bool) error {
	if asJSON {
		return writeJSON(w, r)
	}
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	what := "published"
	if r.DryRun {
		what = "to publish"
	}
	if len(r.Partitions) > 0 {
		fmt.Fprintf(out, "corrections\tpartition\t%s\texpired\tother reasons\toldest event time\tnewest event time\t\n", what)
	}
	for _, p := range r.Partitions {
		writeRepaired(out, p.To, fmt.Sprint(p.Partition), p.Counts)
	}
	if len(r.Partitions) > 1 {
		writeRepaired(out, "all", "", r.Counts)
	}
	if len(r.Partitions) == 0 {
		fmt.Fprintln(out, "nothing new on the late topics")
	}
	return out.Flush()
}

func writeRepaired(w io.Writer, topic, partition string, c repair.Counts) {
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", topic, partition, c.Corrections, c.Expired, c.Others(),
		eventTime(c.Oldest), eventTime(c.Newest), strings.Join(repairNotes(c), ", "))
}

// repairNotes says what is rare.
func repairNotes(c repair.Counts) (notes []string) {
	for _, reason := range slices.Sorted(maps.Keys(c.OtherReasons)) {
		notes = append(notes, fmt.Sprintf("%s %d", reason, c.OtherReasons[reason]))
	}
	for _, rare := range []struct {
		n    int64
		what string
	}{
		{c.Corrected, "corrected before"},
		{c.Unreadable, "unreadable"},
		{c.NoTime, "without a usable event time"},
		{c.Repeated, "repeated"},
		{c.Gone, "gone before they were read"},
	} {
		if rare.n > 0 {
			notes = append(notes, fmt.Sprintf("%d %s", rare.n, rare.what))
		}
	}
	if c.Transactions > 1 {
		notes = append(notes, fmt.Sprintf("%d transactions", c.Transactions))
	}
	return notes
}

func eventTime(ms *int64) string {
	if ms == nil {
		return "-"
	}
	return time.UnixMilli(*ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
