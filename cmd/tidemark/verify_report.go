package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// topicReport is one topic in the JSON that is shown.
type topicReport struct {
	verify.Report
	Partitions []verify.Report `json:"partitions"`
	Notes      []string        `json:"notes,omitempty"` // what is no violation, and not what anybody wants
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
func showReports(w io.Writer, cfg config.Config, reports []verify.Report, fits map[string]*misfitting, asJSON bool) error {
	var all verify.Report
	for _, r := range reports {
		all.Add(r)
	}
	verdict := all.Verdict()
	topics := byTopic(reports)
	for i := range topics {
		topics[i].Notes = notesOn(topics[i].Report, cfg, fits[topics[i].Topic])
	}
	var err error
	if asJSON {
		err = writeJSON(w, struct {
			Holds   bool           `json:"holds"`
			Verdict verify.Verdict `json:"verdict"`
			Topics  []topicReport  `json:"topics"`
		}{verdict == verify.Holds, verdict, topics})
	} else {
		err = writeReports(w, topics, &all)
	}
	switch {
	case err != nil:
		return err
	case verdict == verify.Broken:
		return &exitError{exitNotHeld, nil, ""}
	case verdict == verify.Unknown:
		return &exitError{exitFailed, errors.New("verify: cannot tell whether the contract holds: open transactions hide records of the outputs"), hiddenHint(cfg, all.Hidden[0])}
	}
	return nil
}

// hiddenHint says how to end an open transaction that hides records.
func hiddenHint(cfg config.Config, h verify.Hidden) string {
	return "find the program that has it open (" + fault.CommandsFor(cfg).Line("kafka-transactions", "describe-producers", "--topic", h.Topic, "--partition", fmt.Sprint(h.Partition)) +
		"), stop it, or wait until the transaction times out, and verify again"
}

func writeReports(w io.Writer, topics []topicReport, all *verify.Report) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, t := range topics {
		writeOtherTimes(out, t)
	}
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
	for _, t := range topics {
		writeHidden(out, t.Hidden)
		writeFrom(out, t)
	}
	for _, t := range topics {
		for _, note := range t.Notes {
			fmt.Fprintf(out, "note: %s: %s\n\n", t.Topic, note)
		}
	}
	fmt.Fprintln(out, verdictLine(all))
	return out.Flush()
}

// verdictLine is the last line. What was not judged is said there too, for many read no
// other.
func verdictLine(all *verify.Report) string {
	unjudged := int64(0)
	for _, n := range all.Unjudged {
		unjudged += n
	}
	switch {
	case all.Verdict() == verify.Broken && unjudged > 0:
		return fmt.Sprintf("DOES NOT HOLD; besides, %d records were not judged in full", unjudged)
	case all.Verdict() == verify.Broken:
		return "DOES NOT HOLD"
	case all.Verdict() == verify.Unknown:
		return fmt.Sprintf("CANNOT TELL: no violation in sight, but %d records were not judged in full", unjudged)
	case unjudged > 0:
		return fmt.Sprintf("HOLDS as far as it was judged: %d records were not judged in full", unjudged)
	}
	return "HOLDS"
}

// writeOtherTimes says first of all for which partitions verify has other event times than
// the commits.
func writeOtherTimes(w io.Writer, t topicReport) {
	var others []string
	for _, p := range t.Partitions {
		if p.OtherTimes {
			others = append(others, fmt.Sprint(p.Partition))
		}
	}
	if len(others) > 0 {
		what := "partition"
		if len(others) > 1 {
			what = "partitions"
		}
		fmt.Fprintf(w, "%s: nothing in %s %s is judged by event time: what is committed there was made with another TIDEMARK_EVENT_TIME, or by another version\n\n",
			t.Topic, what, strings.Join(others, ", "))
	}
}

// writeFrom says where the configuration may have changed, if that explains violations.
func writeFrom(w io.Writer, t topicReport) {
	var flags []string
	wrong := int64(0)
	for _, p := range t.Partitions {
		from, ok := p.Times.HintFrom()
		switch {
		case p.Times.Wrong == 0:
			continue
		case !ok:
			return
		case from.Epoch > 0:
			flags = append(flags, fmt.Sprintf("--from epoch:%d", from.Epoch))
		default:
			flags = append(flags, fmt.Sprintf("--from %d:%d", p.Partition, from.Offset))
		}
		wrong += p.Times.Wrong
	}
	slices.Sort(flags)
	if flags = slices.Compact(flags); len(flags) > 0 {
		fmt.Fprintf(w, "%s: violations that another configuration would explain: %d, and all records behind them are right. If TIDEMARK_EVENT_TIME, TIDEMARK_DEDUP or TIDEMARK_HEADERS was another until then, verify with\n  %s\n\n",
			t.Topic, wrong, strings.Join(flags, " "))
	}
}

// writeHidden shows what open transactions hide.
func writeHidden(w io.Writer, hidden []verify.Hidden) {
	for _, h := range hidden {
		fmt.Fprintf(w, "%s partition %d: offsets [%d, %d) are hidden by an open transaction\n", h.Topic, h.Partition, h.From, h.To)
		for _, t := range h.Transactions {
			fmt.Fprintf(w, "  %s\n", t)
		}
		if len(h.Transactions) == 0 {
			fmt.Fprintln(w, "  the brokers do not say whose")
		}
	}
	if len(hidden) > 0 {
		fmt.Fprintln(w)
	}
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
	row("held", r.Buffered, "")
	rare("expired", r.Expired, "output records whose source record is gone")
	rare("replayed", r.Replayed, "output records from before the group was last reset")
	rare("repeated", r.Repeated, "output records repeated, as at-least-once may")
	rare("bare", r.Bare, "output records too large to name their source record")
	rare("trimmed", r.Trimmed, "output records too large for other headers")
	rare("registered", r.Registered, "records late because the registry did not have their schema, which it has now")
	rare("unproven", r.Unproven, "records read whose output retention may have deleted")
	for _, gap := range verify.Gaps {
		rare("not judged", r.Unjudged[gap], string(gap)+": "+gap.Why())
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
