package page

import (
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Write returns the page that shows a status at a moment, with all there is of the
// partitions that shown names, and a row for each of the others. What the script puts
// anew has data-live.
func Write(st *status.Status, now time.Time, shown func(id string) bool) []byte {
	d := &document{make([]byte, 0, 16<<10+len(st.Partitions)*2<<10)}
	d.add(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>%s · %s · Tidemark</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="page.css">
<script src="page.js" defer></script>
</head>
<body>
`, st.State, st.Instance)
	d.shapes()
	d.add(`<header>
<h1>Tidemark</h1>
<p class="link"><span id="link" role="status"></span> <button type="button" id="pause" hidden aria-pressed="false">Pause</button></p>
<noscript><p class="link"><a href="">Reload</a></p></noscript>
</header>
<main>
`)
	d.verdict(st, now)
	d.facts(st, now)
	d.totals(st)
	d.partitions(st, shown)
	d.add(`</main>
<footer><p>The same, for machines: <a href="status">status</a> (JSON), <a href="metrics">metrics</a> (Prometheus). Times are in UTC.</p></footer>
</body>
</html>
`)
	return d.text
}

// verdicts are the mark and the colour of each state of the process.
var verdicts = map[status.State]markup{
	status.Healthy: "healthy", status.Starting: "recovering", status.Degraded: "degraded", status.Unreachable: "unreachable",
}

// verdict says how things are, and why, the most important first.
func (d *document) verdict(st *status.Status, now time.Time) {
	state, known := verdicts[st.State]
	if !known {
		state = "unreachable"
	}
	d.add(`<section class="verdict" aria-label="State">
<p id="state" data-live role="status"><span class="state %s">`, state)
	d.mark(state)
	d.add(`%s</span></p>
<div id="reason" data-live>
`, st.State)
	if len(st.Reasons) > 0 {
		d.add("<ul class=\"reason\">\n")
		for i, r := range st.Reasons {
			d.add("<li>%s.", strings.TrimSuffix(r, "."))
			if i < len(st.Hints) && st.Hints[i] != "" {
				d.add(`<p class="note">To do: %s.</p>`, strings.TrimSuffix(st.Hints[i], "."))
			}
			d.add("</li>\n")
		}
		d.add("</ul>\n")
	}
	d.add(`<p class="note">As of %s`, clock(st.At, now))
	if old := now.Sub(st.At); old > 3*time.Second {
		d.add(`, <strong>%s ago</strong>`, span(old))
	}
	d.add(`.</p>
</div>
</section>
`)
}

// facts says what this is.
func (d *document) facts(st *status.Status, now time.Time) {
	d.add("<section aria-label=\"What this is\">\n<dl class=\"facts\" id=\"facts\" data-live>\n")
	d.fact("Topics", strings.Join(st.Topics, ", "))
	d.fact("Group", st.Group)
	d.fact("Instance", st.Instance)
	d.fact("Event time", capital(st.EventTime))
	d.fact("Delivery", string(st.Delivery))
	d.fact("Watermark", strategyWords(&st.Facts))
	if st.IdleTimeout > 0 {
		d.fact("Idle timeout", span(st.IdleTimeout))
	} else {
		d.fact("Idle timeout", "none")
	}
	if st.MaxFuture > 0 {
		d.fact("Future limit", span(st.MaxFuture)+" ahead of the clock here")
	} else {
		d.fact("Future limit", "none")
	}
	if words := clocks.Names(st.Producers, st.ProducersOff); words != "" {
		d.fact("Producers", capital(words))
	}
	d.fact("Version", st.Version)
	d.fact("Up for", span(now.Sub(st.Started)))
	d.fact("Brokers", probeWords(st.Probes.Metadata, now))
	d.fact("Coordinator", probeWords(st.Probes.Admin, now))
	d.add("</dl>\n</section>\n")
}

func (d *document) fact(name markup, value string) {
	if value == "" {
		value = "–"
	}
	d.add("<div><dt>%s</dt><dd>%s</dd></div>\n", name, value)
}

func strategyWords(f *status.Facts) string {
	if f.Strategy == config.Punctuated || f.Strategy == "" {
		return string(f.Strategy)
	}
	if f.Strategy == config.Adaptive {
		return string(f.Strategy) + ", bound up to " + span(f.Bound)
	}
	return string(f.Strategy) + ", bound " + span(f.Bound)
}

func probeWords(p status.Probe, now time.Time) string {
	switch {
	case p.At.IsZero():
		return "not asked yet"
	case p.Err != nil:
		return "no answer, " + span(max(now.Sub(p.At), 0)) + " ago"
	}
	return "answered in " + span(p.Took) + ", " + span(max(now.Sub(p.At), 0)) + " ago"
}

// reasons are those for which a record may be late.
var reasons = []reorder.Verdict{reorder.BehindWatermark, reorder.Overflow, reorder.Future, reorder.InvalidTime, reorder.Duplicate}

// sums are what all partitions come to together.
type sums struct {
	tally         status.Totals
	ordered, late float64 // a second
	lateBy        [reorder.Duplicate + 1]float64
	backlog       int64
	unknown       bool // of some, how much is still to be read
	disorder      status.Histogram
	bound         time.Duration // the greatest there is
}

func sum(st *status.Status) *sums {
	var s sums
	for i := range st.Partitions {
		p := &st.Partitions[i]
		s.tally.Read += p.Read
		s.tally.Ordered += p.Ordered
		s.tally.Dropped += p.Dropped
		s.tally.Lost += p.Totals.Lost
		s.tally.Held += p.Held
		for v := range p.Late {
			s.tally.Late[v] += p.Late[v]
			s.lateBy[v] += p.LateRates[v]
		}
		s.ordered += p.OrderedRate
		s.late += p.LateRate
		s.backlog += max(p.Backlog(), 0)
		s.unknown = s.unknown || p.Backlog() < 0
		s.disorder.Add(&p.Disorder)
		s.bound = max(s.bound, boundOf(st, p))
	}
	return &s
}

// boundOf returns the bound of a partition, 0 if there is none.
func boundOf(st *status.Status, p *status.Partition) time.Duration {
	if st.Strategy == config.Adaptive {
		return p.Bound
	}
	return st.Bound
}

// totals says what all partitions do together.
func (d *document) totals(st *status.Status) {
	s := sum(st)
	d.add("<section class=\"totals\" aria-label=\"All partitions\">\n<div class=\"figures\" id=\"figures\" data-live>\n")
	d.figure("Ordered", perSecond(s.ordered), "/s", whole(s.tally.Ordered)+" so far")
	d.figure("Late", perSecond(s.late), "/s", whole(s.tally.AllLate())+" so far")
	d.figure("Held", whole(s.tally.Held), "", size(st.Bytes)+" of "+size(st.Memory))
	switch {
	case len(st.Partitions) == 0:
		d.figure("Backlog", "–", "", "unknown: no partition is assigned")
	case s.unknown && s.backlog == 0:
		d.figure("Backlog", "–", "", "unknown")
	case s.unknown:
		d.figure("Backlog", whole(s.backlog), "", "and more, unknown for some partitions")
	default:
		d.figure("Backlog", whole(s.backlog), "", "records still to be read")
	}
	if st.Latency.Count() > 0 {
		d.figure("Latency", withinWords(&st.Latency, 0.5), "", "beyond the bound; 99 % within "+withinWords(&st.Latency, 0.99))
	} else {
		d.figure("Latency", "–", "", "beyond the bound")
	}
	d.figure("Commits", whole(st.Counts.Commits), "", plural(st.Counts.Aborts, "abort", "aborts")+", "+plural(st.Counts.Rebalances, "rebalance", "rebalances"))
	d.add("</div>\n<div class=\"pair\">\n<figure id=\"disorder\" data-live>\n<h2>Disorder</h2>\n")
	d.disorder(&s.disorder, s.bound)
	d.add("<figcaption>%s</figcaption>\n</figure>\n<div id=\"late\" data-live>\n<h2>Late records</h2>\n", disorderWords(&s.disorder))
	d.add(`<table><thead><tr><th scope="col">Reason</th><th scope="col">So far</th><th scope="col">Now</th></tr></thead><tbody>` + "\n")
	for _, v := range reasons {
		d.add("<tr><th scope=\"row\">%s</th><td>%s</td><td>%s/s</td></tr>\n", emit.Reason(v), whole(s.tally.Late[v]), perSecond(s.lateBy[v]))
	}
	d.add("</tbody></table>\n")
	if s.tally.Dropped > 0 {
		d.add("<p class=\"note\">%s went to no topic.</p>\n", plural(s.tally.Dropped, "duplicate", "duplicates"))
	}
	if s.tally.Lost > 0 {
		d.add("<p class=\"note\">%s gone from the source before they were released.</p>\n", plural(s.tally.Lost, "record was", "records were"))
	}
	d.add("</div>\n</div>\n</section>\n")
}

func (d *document) figure(name markup, value, unit, note string) {
	d.add("<div class=\"figure\"><h2>%s</h2><p><b>%s</b>%s</p><p class=\"note\">%s</p></div>\n", name, value, unit, note)
}

// partitions has a row for each partition, the worst first, that opens to all there is.
func (d *document) partitions(st *status.Status, shown func(id string) bool) {
	d.add("<section aria-label=\"Partitions\">\n<div id=\"counts\" data-live>\n<h2 class=\"count\">%s</h2>\n<p class=\"note\">%s</p>\n</div>\n",
		plural(int64(len(st.Partitions)), "partition", "partitions"), stateCounts(st))
	d.add(`<div class="heads" aria-hidden="true"><span>State</span><span>Partition</span><span class="legend">`)
	d.add(`<span class="out">put out</span><span class="watermark">watermark</span><span class="held">held</span><span class="newest">newest</span><span class="clock">clock</span></span>`)
	d.add(`<span class="n">Behind</span><span class="n">Held</span><span class="n">Ordered/s</span><span class="n">Late/s</span><span class="n">Next out</span></div>` + "\n<div id=\"partitions\">\n")
	width := rowWidth(st.Partitions)
	for _, p := range worstFirst(st.Partitions, st.At) {
		d.partition(st, p, width, shown)
	}
	d.add("</div>\n</section>\n")
}

// stateCounts says how many partitions are in which state.
func stateCounts(st *status.Status) string {
	n, wrong := map[status.PartitionState]int64{}, int64(0)
	for i := range st.Partitions {
		n[st.Partitions[i].State]++
		if len(st.Partitions[i].Reasons) > 0 {
			wrong++
		}
	}
	var words []string
	for _, s := range status.PartitionStates {
		if n[s] > 0 {
			words = append(words, humanState(s)+" "+whole(n[s]))
		}
	}
	switch {
	case len(words) == 0 && st.Ready:
		return "None is assigned to this instance: it is a spare."
	case len(words) == 0:
		return "None is assigned to this instance, which is not ready."
	case wrong > 0:
		return strings.Join(words, ", ") + "; something is wrong with " + whole(wrong) + "; the worst first."
	}
	return strings.Join(words, ", ") + "; the worst first."
}

func humanState(s status.PartitionState) string { return strings.ReplaceAll(string(s), "-", " ") }
