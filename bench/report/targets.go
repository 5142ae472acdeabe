package report

import (
	"fmt"
	"math"

	"github.com/tidemarkhq/tidemark/bench/suite"
)

// target is something that was promised.
type target struct {
	id, what string
	want     string
	got      string
	pass     bool
}

// list collects targets of which there is a figure.
type list []target

func (l *list) least(id, what, unit string, want, got float64) {
	if got > 0 && !math.IsInf(got, 0) && !math.IsNaN(got) {
		*l = append(*l, target{id, what, "≥ " + figure(want, unit), figure(got, unit), got >= want})
	}
}

func (l *list) most(id, what, unit string, want, got float64, measured bool) {
	if measured && !math.IsInf(got, 0) && !math.IsNaN(got) {
		*l = append(*l, target{id, what, "≤ " + figure(want, unit), figure(got, unit), got <= want})
	}
}

func figure(f float64, unit string) string {
	switch {
	case unit == "":
		return fmt.Sprintf("%.2f", f)
	case f < 100 && f != math.Trunc(f):
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

func (p *page) targets() {
	var l list
	p.limitTargets(&l)
	p.peerTargets(&l)
	p.coreTargets(&l)
	p.latencyTargets(&l)
	p.sizeTargets(&l)
	if len(l) == 0 {
		return
	}
	p.line("## Targets")
	p.line("")
	p.line("| | target | figure | |")
	p.line("|---|---|---|---|")
	for _, t := range l {
		verdict := "pass"
		if !t.pass {
			verdict = "**short**"
		}
		p.line("| %s | %s | %s | %s |", t.what, t.want, t.got, verdict)
	}
	p.line("")
	for _, t := range l {
		if t.pass {
			continue
		}
		cause := p.causes[t.id]
		if cause == "" {
			cause = "not explained yet"
		}
		p.line("- *%s* falls short: %s.", t.what, cause)
	}
	p.line("")
}

// ratio divides two candidates' medians.
func ratio(t table[suite.Run], a, b string, f func(suite.Run) float64) float64 {
	return median(t.rows[a], f) / median(t.rows[b], f)
}

func (p *page) limitTargets(l *list) {
	main, ok := p.runs["limit/main"]
	if !ok {
		main = p.runs["main"]
	}
	l.least("throughput", "throughput, of the exactly-once copy loop's, Kafka", "", 0.85, ratio(main, "tidemark", "copy", rate))
	l.least("throughput-kfake", "the same on kfake", "", 0.7, ratio(p.runs["kfake/main"], "tidemark", "copy", rate))
	cpu := ratio(main, "tidemark", "copy", whole)
	l.most("cpu", "CPU seconds, of the copy loop's", "", 1.3, cpu, cpu > 0)
}

func (p *page) peerTargets(l *list) {
	for _, s := range []struct{ name, id, what string }{
		{"main", "peers", "2 M records"}, {"main-8M/main", "peers-8M", "8 M records"},
	} {
		t := p.runs[s.name]
		bestRate, bestShare := 0.0, 0.0
		for _, n := range t.names {
			if isPeer(n) {
				bestRate = max(bestRate, median(t.rows[n], rate))
				bestShare = max(bestShare, median(t.rows[n], perCPU))
			}
		}
		l.least(s.id, "throughput, of the better peer's, "+s.what, "times", 4, median(t.rows["tidemark"], rate)/bestRate)
		l.least(s.id+"-cpu", "records per CPU second, of the better peer's, "+s.what, "times", 4, median(t.rows["tidemark"], perCPU)/bestShare)
		resident := median(t.rows["tidemark"], peak)
		l.most(s.id+"-memory", "resident at the most, "+s.what, "MiB", 120, resident, resident > 0)
	}
	t := p.latencies
	ours := t.rows["tidemark"]
	for _, n := range t.names {
		if !isPeer(n) || len(ours) == 0 || t.rows[n][0].Interval != ours[0].Interval {
			continue
		}
		worst := 0.0
		for _, percentile := range suite.Percentiles {
			if percentile > 0 {
				worst = max(worst, median(ours, at(percentile))/median(t.rows[n], at(percentile)))
			}
		}
		l.most("latency-"+n, "latency, of "+n+"'s, at the worst of the percentiles", "", 1, worst, true)
	}
}

func perCPU(r suite.Run) float64 { return float64(r.Records) / r.Whole }

func isPeer(name string) bool {
	chosen, err := suite.Choose([]string{name})
	return err == nil && chosen[0].Peer != ""
}

func (p *page) coreTargets(l *list) {
	_, _, rows := p.coreRows()
	ours, heap := rows["tidemark"], rows["heap"]
	const few, many = 50_000, 5_000_000
	for _, held := range []int{few, many} {
		l.least(fmt.Sprintf("core-%d", held), fmt.Sprintf("the core, times as fast as container/heap, %s held", thousands(float64(held))),
			"times", 10, median(heap[held], nanos)/median(ours[held], nanos))
	}
	l.most("core-allocations", "allocations a record", "", 0, median(ours[many], allocs), len(ours[many]) > 0)
	// What a factor of log n would have grown by.
	l.most("core-growth", "growth of the core's time with a hundred times as many held", "",
		math.Log(many)/math.Log(few), median(ours[many], nanos)/median(ours[few], nanos), len(ours[many]) > 0)
}

func (p *page) latencyTargets(l *list) {
	for _, t := range []struct {
		name, what string
		want       float64
	}{
		{"tidemark", "P99 beyond the bound, exactly once, commits every 100 ms", 115},
		{"tidemark-10ms", "the same, commits every 10 ms", 25},
		{"tidemark-alo", "the same, at least once", 10},
	} {
		rows := p.latencies.rows[t.name]
		l.most("latency-"+t.name, t.what, "ms", t.want, median(rows, at(99)), len(rows) > 0)
	}
}

func (p *page) sizeTargets(l *list) {
	for _, t := range p.within("buffer") {
		rows := t.rows["tidemark"]
		if len(rows) == 0 {
			continue
		}
		held := float64(rows[0].Held) / (1 << 20)
		l.most("memory", fmt.Sprintf("resident, with %.0f MiB held", held), "MiB", math.Floor(1.25*held+48), median(rows, peak), true)
	}
	rows := p.runs["main"].rows["tidemark"]
	l.most("join", "start to member of the group", "ms", 300, median(rows, joined), len(rows) > 0)
	l.most("binary", "binary", "MB", 28, float64(p.binary)/1e6, p.binary > 0)
}
