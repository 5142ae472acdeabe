package page

import (
	"strconv"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/watermark"
)

// looks are the shape and the colour of each state, by the name of its class.
var looks = map[status.PartitionState]markup{
	status.Active: "active", status.Idle: "idle", status.Draining: "draining", status.Paused: "paused", status.Recovering: "recovering",
	status.WaitingForSchema: "waiting", status.WaitingForOutputs: "waiting", status.Stopped: "stopped",
}

// shapes defines the marks of states. They differ in shape, for colours alone would not
// tell them apart to everybody.
func (d *document) shapes() {
	d.add(`<svg class="shapes" aria-hidden="true">
<symbol id="mark-active" viewBox="0 0 12 12"><circle cx="6" cy="6" r="5"/></symbol>
<symbol id="mark-idle" viewBox="0 0 12 12"><circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2"/></symbol>
<symbol id="mark-draining" viewBox="0 0 12 12"><path d="M1 3H11L6 11Z"/></symbol>
<symbol id="mark-paused" viewBox="0 0 12 12"><path d="M2 1H5V11H2ZM7 1H10V11H7Z"/></symbol>
<symbol id="mark-recovering" viewBox="0 0 12 12"><path d="M10 3.5A5 5 0 1 0 11 7" fill="none" stroke="currentColor" stroke-width="2"/><path d="M11.5 0V5H6.5Z"/></symbol>
<symbol id="mark-waiting" viewBox="0 0 12 12"><path d="M1 0H11V2L7 6L11 10V12H1V10L5 6L1 2Z"/></symbol>
<symbol id="mark-stopped" viewBox="0 0 12 12"><path d="M3.5 0H8.5L12 3.5V8.5L8.5 12H3.5L0 8.5V3.5Z"/></symbol>
<symbol id="mark-healthy" viewBox="0 0 12 12"><path d="M1 6.5L4.5 10L11 2.5" fill="none" stroke="currentColor" stroke-width="2.2"/></symbol>
<symbol id="mark-degraded" viewBox="0 0 12 12"><path d="M6 0L12 11.5H0Z"/></symbol>
<symbol id="mark-unreachable" viewBox="0 0 12 12"><path d="M2 2L10 10M10 2L2 10" fill="none" stroke="currentColor" stroke-width="2.4"/></symbol>
</svg>
`)
}

func (d *document) mark(look markup) {
	d.add(`<svg class="mark" aria-hidden="true"><use href="#mark-%s"/></svg>`, look)
}

// idOf names a partition.
func idOf(p *status.Partition) string { return p.Topic + "/" + strconv.Itoa(int(p.Partition)) }

// partition has the row of a partition, and behind it all there is, if it is to be shown.
func (d *document) partition(st *status.Status, p *status.Partition, width time.Duration, shown func(id string) bool) {
	id, bound := idOf(p), boundOf(st, p)
	look, mark, word := appearance(p)
	d.add(`<details class="partition %s" id="%s"><summary><span class="state">`, look, id)
	d.mark(mark)
	d.add(`%s</span><span class="name"><span class="topic" title="%s">%s</span> <b>%d</b></span>`, word, p.Topic, p.Topic, p.Partition)
	d.timeline(p, bound, st.At, rowScale(p.Newest, width), small)
	behind := "–"
	if p.Newest != watermark.None {
		behind = span(ago(p.Newest, st.At))
	}
	d.cell("behind", behind)
	d.cell("held", whole(p.Held))
	d.cell("ordered/s", perSecond(p.OrderedRate))
	d.cell("late/s", perSecond(p.LateRate))
	d.cell("next out", due(&p.Hold, st.At))
	if told(p, st.At) {
		d.add(`<span class="why">%s</span>`, sentence(p.Hold.Words))
	}
	d.add("</summary>")
	if shown(id) {
		d.body(st, p, bound)
	}
	d.add("</details>\n")
}

// appearance returns the colour, the mark and the word of a partition's state: that of the most
// important reason, if there is one about it.
func appearance(p *status.Partition) (look, mark markup, word string) {
	look = looks[p.State]
	if len(p.Reasons) > 0 && !p.State.StandsStill() {
		return "wrong", "degraded", p.Reasons[0].Short()
	}
	return look, look, string(look)
}

// told reports whether a row says what its partition waits for without being opened.
func told(p *status.Partition, now time.Time) bool {
	return trouble(p, now) > 0 || p.State == status.Paused || p.State == status.Recovering
}

// cell has a number of a row. Its label is seen where there is no head above it.
func (d *document) cell(label markup, value string) {
	d.add(`<span class="n"><span class="label">%s</span> %s</span>`, label, value)
}

// sentence makes one of words that say what a partition does.
func sentence(words string) string {
	if strings.HasPrefix(words, "is ") {
		words = "it " + words
	}
	return strings.TrimSuffix(capital(words), ".") + "."
}

func capital(words string) string {
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// due says when the next release is due.
func due(h *status.Hold, now time.Time) string {
	switch in := h.At.Sub(now); {
	case h.Unseen:
		return "hidden"
	case h.At.IsZero():
		return "–"
	case in < status.DueNow:
		return "now"
	default:
		return "in " + span(in)
	}
}

// body has all there is of a partition.
func (d *document) body(st *status.Status, p *status.Partition, bound time.Duration) {
	words := sentence(p.Hold.Words) + " "
	if told(p, st.At) {
		words = "" // the row above has them
	}
	d.add(`<div class="body"><p class="hold">%s%s</p>`, words, releaseWords(&p.Hold, st.At))
	d.add("\n" + `<div class="pair"><figure><h3>Event time</h3>`)
	d.timeline(p, bound, st.At, ownScale(p, watermark.Time(st.At.UnixNano()), bound), large)
	d.add(`<figcaption>%s.</figcaption></figure>`, capital(timelineWords(p, st.At)))
	d.add("\n<figure><h3>Disorder</h3>")
	d.disorder(&p.Disorder, bound)
	d.add(`<figcaption>%s</figcaption></figure></div>`, disorderWords(&p.Disorder))
	d.add("\n" + `<dl class="facts">`)
	d.fact("State", humanState(p.State))
	d.fact("Newest event", when(p.Newest, st.At))
	d.fact("Watermark", when(p.Watermark, st.At))
	d.fact("Next to come out", when(p.Hold.Event, st.At))
	if p.Bound > 0 {
		d.fact("Bound, as learned", span(p.Bound))
	}
	d.fact("Held", plural(p.Held, "record", "records")+", "+size(p.Bytes))
	d.fact("Still to be read", offset(p.Backlog()))
	if held := p.End - p.Stable; p.End >= 0 && p.Stable >= 0 && held > 0 {
		d.fact("Behind an open transaction", whole(held)+" of them")
	}
	d.fact("Offset committed", offset(p.Committed))
	d.fact("Next offset", offset(p.Next))
	d.fact("End of the log", offset(p.End))
	d.fact("Read", whole(p.Read))
	d.fact("Ordered", whole(p.Ordered))
	d.fact("Late", lateWords(p))
	d.fact("Event times from", sourceWords(st, p))
	if p.Dropped > 0 {
		d.fact("Duplicates dropped", whole(p.Dropped))
	}
	if p.Totals.Lost > 0 {
		d.fact("Lost", whole(p.Totals.Lost))
	}
	if n := p.Unaccounted(); n != 0 {
		d.fact("Unaccounted for", whole(n))
	}
	if p.Epoch > 0 {
		d.fact("Epoch", whole(int64(p.Epoch)))
	}
	if p.EventTimeFinding != "" {
		d.fact("Event times", p.EventTimeFinding)
	}
	if p.LateCause != "" {
		d.fact("Late because", p.LateCause)
	}
	if p.Invalid.Err != nil {
		d.fact("Last without event time", p.Invalid.String())
	}
	if p.Absent != "" {
		d.fact("Source absent", p.Absent)
	}
	if words, odd := findings[p.Finding]; odd {
		d.fact("Clocks", words)
	}
	d.add("</dl></div>")
}

// releaseWords says when the next release is due, and what of.
func releaseWords(h *status.Hold, now time.Time) string {
	switch in := h.At.Sub(now); {
	case h.Event == watermark.None:
		return ""
	case h.Unseen:
		return "Records come out; it is not known when readers see them."
	case h.At.IsZero():
		return "It is not known when the next release is due."
	case in < status.DueNow:
		return "The next release is due now."
	default:
		return "The next release is due in " + span(in) + ", at " + clock(h.At, now) + "."
	}
}

func lateWords(p *status.Partition) string {
	var words []string
	for _, v := range reasons {
		if p.Late[v] > 0 {
			words = append(words, whole(p.Late[v])+" "+emit.Reason(v))
		}
	}
	if len(words) == 0 {
		return "0"
	}
	return strings.Join(words, ", ")
}

// sourceWords says how often each source of event times decided.
func sourceWords(st *status.Status, p *status.Partition) string {
	var words []string
	for i, n := range p.DecidedBy {
		if n > 0 {
			words = append(words, st.Sources[i]+" "+whole(n))
		}
	}
	return strings.Join(words, ", ")
}

func offset(n int64) string {
	if n < 0 {
		return "not known"
	}
	return whole(n)
}

// findings are what clocks are found to be, if anything is off.
var findings = map[clocks.Finding]string{
	clocks.Ahead:       "event times lie in the future: a producer's clock is ahead",
	clocks.Behind:      "event times lag evenly: a producer's clock is behind",
	clocks.WrittenLate: "events are written long after they happened",
	clocks.ReadLate:    "records are read long after they were written",
	clocks.OwnAhead:    "the clock of this machine is ahead of the brokers'",
	clocks.OwnBehind:   "the clock of this machine is behind the brokers'",
}
