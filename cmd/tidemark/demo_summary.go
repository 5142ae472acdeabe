package main

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/verify"
)

const columns = 79 // that a line may fill

func (d *demo) opening() {
	d.screen.print(
		d.screen.bold("Tidemark demo")+": a Kafka broker, the sidecar and a consumer, all in this process",
		"",
		"  phones and tills --> payments --> tidemark --> payments.ordered",
		"                                             +-> payments.late",
		"",
		"  Prepaid cards are topped up by phone and spent at tills. Both are offline now",
		"  and then, and send later what they could not. Every purchase was covered when",
		"  it was made: a consumer that declines one has been told in the wrong order.",
		"",
	)
}

// whyLate says in the words of the story what a reason means.
var whyLate = map[string]string{
	"behind-watermark": "offline for half a minute, and the bound is " + storyBound.String(),
	"future":           "from a clock that is a day ahead; it moved no watermark",
	"invalid-time":     "from a clock that shows no time",
	"overflow":         "behind what a lack of memory sent out early",
}

// summary shows what came of the story: examples of both outputs, the proof,
// and what to do next.
func (d *demo) summary(reports []verify.Report) {
	s := d.screen
	ordered, late := d.cfg.OrderedTopic(storyTopic), d.cfg.LateTopic(storyTopic)
	s.print(fmt.Sprintf("  The price of order is the wait. It is set: TIDEMARK_MAX_OUT_OF_ORDERNESS=%v.", storyBound), "")
	s.print(s.bold(late) + ", what cannot be put in order any more: unchanged, with the reason")
	for _, group := range d.witness.reasons() {
		reason := header(group[0], d.cfg.HeaderPrefix+"late-reason")
		s.print(fmt.Sprintf("  %d %s: %s", len(group), reason, whyLate[reason]))
		s.print(s.record(group[0])...)
	}
	s.print("", s.bold(ordered)+", two neighbours: the later one was sent first")
	for _, r := range d.witness.neighbours() {
		s.print(s.record(r)...)
	}
	s.print(
		"  A watermark promises that no later record of the partition has an event time",
		"  up to it. So a consumer closes a time window as soon as a header says that it",
		"  is complete: no clock to consult, nothing to guess.",
		"")
	d.proof(reports)
	s.print("",
		s.bold("On your own Kafka"),
		"  TIDEMARK_BROKERS=localhost:9092 TIDEMARK_TOPICS="+storyTopic+" tidemark run",
		"  Then let your consumer read "+ordered+". Event times come from the",
		"  header event-time, or else from Kafka's timestamps, unless told otherwise.")
	if !d.keep {
		s.print("  To look around here first, with a browser and any Kafka client:",
			"  tidemark demo --keep")
	}
}

// record shows the value of a record and, below it, the headers.
func (s *screen) record(r *kgo.Record) []string {
	var headers []string
	for _, h := range r.Headers {
		headers = append(headers, h.Key+"="+string(h.Value))
	}
	return append([]string{"    " + string(r.Value)}, wrap("      ", " ", headers)...)
}

// wrap puts words on as few lines as they need.
func wrap(indent, separator string, words []string) (text []string) {
	line := ""
	for i, word := range words {
		if i < len(words)-1 {
			word += separator
		}
		if line != "" && len(indent)+len(line)+len(strings.TrimRight(word, " ")) > columns {
			text = append(text, indent+strings.TrimRight(line, " "))
			line = ""
		}
		line += word
	}
	return append(text, indent+line)
}

// proof shows what was verified.
func (d *demo) proof(reports []verify.Report) {
	s, found, late := d.screen, total(reports), int64(0)
	for _, n := range found.Late {
		late += n
	}
	var kinds []string
	for _, kind := range verify.Kinds {
		kinds = append(kinds, fmt.Sprintf("%d %s", found.Faults[kind].Total, kind))
	}
	s.print(s.bold("Proof")+", by `tidemark verify`, which compares the three topics record by record",
		fmt.Sprintf("  %s read = %s in order + %s late + %s held", count(int(found.Read)),
			count(int(found.Ordered)), count(int(late)), count(int(found.Buffered))))
	s.print(wrap("  ", ", ", kinds)...)
	switch {
	case d.holds(reports):
		raw, ordered := d.seen.raw, d.seen.ordered
		s.print("  "+s.paint("32", "It holds."),
			fmt.Sprintf("  Before and after: %s and %d events out of order, %s and %d wrong decisions.",
				count(raw.stale), ordered.stale, count(raw.declined), ordered.declined))
	case found.Holds():
		s.print("  " + s.paint("31", fmt.Sprintf("It holds for what came out, but %s of %s did not.",
			count(d.seen.total-d.seen.out()), count(d.seen.total))))
	default:
		var text strings.Builder
		_ = writeReports(&text, byTopic(reports), &found)
		s.print("", strings.TrimSpace(text.String()))
	}
}

// keeping tells how to look at what is there.
func (d *demo) keeping(broker string) {
	d.screen.print("",
		d.screen.bold("Still running")+" at "+broker+" until Ctrl-C. The sidecar's status page:",
		"  http://"+d.page.Addr().String()+"/",
		"To look at its records:",
		"  kcat -b "+broker+" -C -e -t payments.late -f '%s\\n  %h\\n'",
		"  kcat -b "+broker+" -C -t payments.ordered -o end -f '%s\\n  %h\\n'",
		"To send a payment, and see it in payments.ordered three seconds later:",
		"  echo '{\"card\":\"card-001\",\"kind\":\"top-up\",\"cents\":500}' |",
		"    kcat -b "+broker+" -P -t payments",
	)
}
