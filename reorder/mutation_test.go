package reorder

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutation breaks one thing that matters: in file, was becomes is.
type mutation struct{ name, file, was, is string }

var mutations = []mutation{
	// What is still owed.
	{"recovery holds what W has passed", "replay.go", "return at.Time > s.W ||", "return at.Time >= s.W ||"},
	{"recovery ignores the frontier", "replay.go", "at.Time > s.W || s.Releasing && !at.Before(s.Frontier)", "at.Time > s.W"},
	{"recovery takes the frontier for done", "replay.go", "!at.Before(s.Frontier)", "s.Frontier.Before(at)"},
	{"recovery asks the guard nothing", "replay.go", " || p.guard.Recall(r.Offset, r.Time)", ""},
	{"recovery moves the maximum on", "replay.go", "p.clock.Max = max(p.clock.Max, r.Time)", "p.clock.Max = p.clock.Max.Next()"},
	{"recovery moves the watermark", "replay.go", "p.clock.Max = max(p.clock.Max, r.Time)", "p.follow(r.Time)"},
	{"recovery ends the run of late records", "replay.go", "p.clock.Max = max(p.clock.Max, r.Time)", "p.lateRun = 0"},
	{"a loss is not counted", "replay.go", "p.count == s.Count && p.sum == s.Sum && !newer", "!newer"},
	{"what a new leader wrote is not read", "replay.go", "p.next = min(p.next, p.parted)", ""},
	{"a new leader goes unnoticed", "replay.go", "newer := p.leader > s.NextEpoch", "newer := false"},
	{"Rewind keeps what is lost", "replay.go", "if e.Offset < end {", "if e.Offset <= end {"},
	{"what was refused is forgotten", "../watermark/guard.go", "append(g.steps[:0], steps...), false", "append(g.steps[:0], steps...), len(steps) > 0"},
	{"what was refused is not recalled", "../watermark/guard.go", "\t\tg.refuse(t)\n\t}\n\treturn future", "\t\t_ = t\n\t}\n\treturn future"},

	{"recovery asks the outside service again", "replay.go", "if p.settled.has(r.Offset) {", "if false {"},
	{"what was settled is not taken up", "replay.go", "settled: slices.Clone(s.Settled)", "settled: slices.Clone(s.Settled[:0])"},
	{"a loss found in a replay leaves what was settled", "replay.go", "p.settled.rewind(p.next)", ""},
	{"Rewind leaves what was settled", "replay.go", "p.settled.rewind(end)", ""},
	{"a rewind takes a settled offset too few", "settled.go", "(*l)[n-1].To = min((*l)[n-1].To, next)", "(*l)[n-1].To = min((*l)[n-1].To, next+1)"},

	// What is committed.
	{"what was settled is not committed", "snapshot.go", "slices.Clone(p.settled)", "slices.Clone(p.settled[:0])"},
	{"what was settled is not written", "metadata.go", "for i, g := range s.Settled {", "for i, g := range s.Settled[:0] {"},
	{"what was settled is forgotten too early", "settled.go", "return s.To <= low }", "return s.To <= low+3 }"},
	{"what was settled is never forgotten", "settled.go", "return s.To <= low }", "return s.To < 0*low }"},
	{"what is settled has no end of room", "settled.go", "len(p.settled) < MaxSettled ||", "len(p.settled) < 1<<20 ||"},
	{"a settled span runs over what is held", "settled.go", "held < l[n-1].To)", "held < 1<<50)"},
	{"the last offset held is not noted", "partition.go", "\tp.held = r.Offset\n", ""},
	{"an outside word is not noted", "partition.go", "if r.Outside && p.count > 0 {", "if r.Outside && p.count > 9 {"},
	{"natural is not written", "metadata.go", `if d := s.W - s.Natural; d != 0 {`, `if d := s.W - s.Natural; d < 0 {`},
	{"natural is not taken up", "replay.go", "Natural: s.Natural,", "Natural: s.W,"},
	{"the frontier is not written", "metadata.go", "if s.Releasing {", "if s.Releasing && s.Low < 0 {"},
	{"the frontier is not taken", "snapshot.go", "s.Releasing, s.Frontier = true, at", "_ = at"},
	{"the late run is not written", "metadata.go", "if s.LateRun != 0 {", "if s.LateRun > 1<<20 {"},
	{"the late run is not taken up", "replay.go", ", lateRun: s.LateRun", ""},
	{"the epoch is not taken up", "replay.go", "epoch: s.Epoch,", ""},
	{"the steps are not written", "metadata.go", "for i, g := range s.Steps {", "for i, g := range s.Steps[:0] {"},
	{"the steps are not committed", "snapshot.go", "s.Steps = p.guard.Steps()", ""},
	{"the sum is not kept", "partition.go", "p.sum -= OffsetHash(offset)", ""},
	{"the count is not read", "metadata.go", "s.Count = uint32(p.int(count, 64))", "s.Count = uint32(p.int(count, 64)) &^ 1"},
	{"L is what was read last", "snapshot.go", "s.Low, s.LowEpoch = offset, leaderEpoch", "s.Low, s.LowEpoch = max(offset, p.next-1), leaderEpoch"},
	{"L has the leader epoch of H", "snapshot.go", "s.Low, s.LowEpoch = offset, leaderEpoch", "s.Low = offset + 0*int64(leaderEpoch)"},
	{"a commit seems to change nothing", "partition.go", "p.clock.Drain(step, p.newest())\n\t\tp.dirty, p.doubts.moved = true, true", "p.clock.Drain(step, p.newest())"},

	// Judging and releasing.
	{"W itself is on time", "../watermark/clock.go", "return t <= c.W }", "return t < c.W }"},
	{"the bound is a nanosecond short", "../watermark/clock.go", "t.Sub(bound).Sub(1)", "t.Sub(bound)"},
	{"only the newest moves the watermark", "follow.go", "case watermark.Bounded:\n", "case watermark.Bounded:\n\t\tif !newest {\n\t\t\tbreak\n\t\t}\n"},
	{"memory moves the natural watermark", "../watermark/clock.go", "c.W = max(c.W, w) }", "c.AdvanceTo(w) }"},
	{"the lookahead is a lie", "partition.go", "following.Time.Millis() - 1", "following.Time.Millis()"},
	{"the last record of a release holds back", "partition.go", "p.clock.W.Next().Millis() - 1", "p.clock.W.Millis() - 1"},
	{"equal times come out as they please", "order.go", "p.Time == q.Time && p.Offset < q.Offset", "p.Time == q.Time && p.Offset > q.Offset"},
	{"re-anchoring keeps the epoch", "partition.go", "\tp.epoch++\n", ""},
	{"re-anchoring flushes nothing", "partition.go", "case !p.flushed:", "case false:"},
	{"re-anchoring flushes up to W", "partition.go", "p.clock.AdvanceTo(p.newest())", ""},
	{"overflow is not told from late", "partition.go", "case r.Time > p.clock.Natural:", "case false:"},
	{"an on-time record does not end the run", "partition.go", "p.lateRun, p.flushed = 0, false", "p.flushed = false"},
	{"Skip forgets the leader", "partition.go", "p.next, p.nextEpoch, p.dirty = next, max(p.nextEpoch, leaderEpoch), true", "p.next, p.dirty = next, true"},
	{"Skip goes back", "partition.go", "if next <= p.Position() {", "if next < 0 {"},
	{"payloads go before they have landed", "arena.go", "spent[n].flight <= flight", "spent[n].flight <= flight+1"},

	// The strategies.
	{"what is known of the disorder is not written", "metadata.go", "if len(s.Disorder) > 0 {", "if len(s.Disorder) > 1<<20 {"},
	{"the disorder is not committed", "snapshot.go", "s.Disorder = p.disorder.Append(nil)", ""},
	{"late records teach nothing", "partition.go", "if v == OnTime || v == BehindWatermark || v == Overflow {", "if v == OnTime {"},
	{"what a late record teaches waits for one that is not", "follow.go", "if p.opts.Strategy == watermark.Adaptive {", "if false {"},
	{"future records teach", "partition.go", "if v == OnTime || v == BehindWatermark || v == Overflow {", "if v != InvalidTime {"},
	{"a record teaches after it was seen", "follow.go", "newest = p.clock.See(t)", "newest = p.clock.See(t)\n\tp.learn(t)"},
	{"what is learned has no floor", "follow.go", "max(learned, p.opts.Floor)", "learned"},
	{"what is learned has no ceiling", "follow.go", "min(max(learned, p.opts.Floor), p.opts.Bound)", "max(learned, p.opts.Floor)"},
	{"a guess is taken for knowledge", "follow.go", "if !known {", "if !known && false {"},
	{"the past never fades", "../watermark/disorder.go", "if h.total*h.late >= disorder*million {", "if false {"},
	{"the learned bound only rises", "../watermark/disorder.go", "for h.bound > 0 && ", "for false && h.bound > 0 && "},
	{"the window forgets the oldest too late", "follow.go", "e.Time >= c.Max.Sub(size)", "e.Time >= c.Max.Sub(size).Sub(1)"},
	{"the window forgets the oldest too soon", "follow.go", "e.Time >= c.Max.Sub(size)", "e.Time > c.Max.Sub(size)"},
	{"the window keeps what is out", "follow.go", "e.Time > c.W && ", ""},
	{"recovery leaves the window empty", "partition.go", "if p.opts.Strategy == watermark.WindowMin {\n\t\tp.window.add(e.Time)", "if p.opts.Strategy == watermark.WindowMin && p.replay == nil {\n\t\tp.window.add(e.Time)"},
	{"a new epoch keeps the window", "partition.go", "p.clock, p.window = watermark.NewClock(), newWindow()", "p.clock = watermark.NewClock()"},
	{"a loss leaves the window", "replay.go", "p.queue, p.window = newCalendar(), newWindow()", "p.queue = newCalendar()"},
	{"markers are believed whatever they say", "follow.go", "if !p.guard.Believes(p.next, w, wall) {", "if false {"},
	{"a marker's step judges its own record", "follow.go", "p.guard.Believes(p.next, w, wall)", "p.guard.Believes(p.next-1, w, wall)"},
	{"markers move the watermark again", "follow.go", " || p.replay != nil {", " {"},
	{"without a marker nothing drains", "partition.go", "p.clock.AdvanceTo(oldest.Time.Sub(1)) // no marker has come; there is nothing else to begin from", "_ = oldest"},
	// Telling repeats from originals.
	{"identities outlive their event time", "group.go", "\tg.forget()\n", ""},
	{"a group ends before it is out", "group.go", "due && at.Time == g.time {", "due && at.Time == g.time && g.head < len(g.aside) {"},
	{"repeats set aside are lost", "group.go", "if g.head == len(g.aside) {", "if g.out != nil {"},
	{"what has no identity is all the same", "group.go", "if len(id) == 0 {", "if len(id) < 0 {"},
	{"the lookahead speaks of a repeat", "partition.go", "if following, ok := p.queue.peek(p.clock.W); ok {", "if following, ok := p.front(); ok {"},
	{"L passes what came out of a group", "group.go", "if g.named || p.lent(e.ref) {", "if !g.open {"},
	{"recovery remembers nothing of a group", "group.go", "r.Time != s.Frontier.Time", "r.Time != s.Frontier.Time.Next()"},
	{"what is remembered is not compared", "group.go", "g.add(&p.store, ref) == original ||", "g.add(&p.store, ref) > repeat ||"},
	{"recovery does not look ahead", "group.go", "}\n\tp.lookAhead()\n}\n\n// rewindGroup", "}\n\tp.endGroup()\n}\n\n// rewindGroup"},
	{"what was set aside is not written", "metadata.go", "if s.Repeats != 0 {", "if s.Repeats < 0 {"},
	{"what was set aside is compared again", "group.go", "e.Offset > s.Repeats {", "e.Offset > -1 {"},
	{"the payload of what was set aside is not kept", "group.go", "if e.known || p.lent(e.ref) {", "if false {"},
	{"what was set aside is not asked for its identity", "group.go", "setAside{e, g.add(&p.store, e.ref) == original}", "setAside{entry: e}"},
	{"nobody asks, and L passes the group", "group.go", "if p.group == nil && r.Offset == s.Low {", "if false {"},
	{"what tells nothing new is kept", "group.go", "} else {\n\t\t\tp.take(ref)", "} else {\n\t\t\t_ = p"},
	{"a repeat seems to change nothing", "group.go", "p.dirty = true\n\tp.endGroup()", "p.endGroup()"},

	// What is seen before it is committed.
	{"the clock's move is relied on", "partition.go", "p.clock.Drain(step, p.newest())\n\t\tp.dirty, p.doubts.moved = true, true", "p.clock.Drain(step, p.newest())\n\t\tp.dirty = true"},
	{"what memory forced is relied on", "partition.go", "Duration(span / 16)))\n\tp.dirty, p.doubts.moved = true, true", "Duration(span / 16)))\n\tp.dirty = true"},
	{"only a release is committed first", "partition.go", "p.clock.Drain(step, p.newest())\n\t\tp.dirty, p.doubts.moved = true, true", "p.clock.Drain(step, p.newest())\n\t\tp.dirty, p.doubts.moved = true, p.doubts.moved || p.Due()"},
	{"a limit raised by a record is relied on", "partition.go", "p.doubts.moved || p.guard.Limit() != limit", "p.doubts.moved && p.guard.Limit() != limit"},
	{"a limit raised by a marker is relied on", "follow.go", "p.doubts.moved || p.guard.Limit() != limit", "p.doubts.moved && p.guard.Limit() != limit"},
	{"an outside word is relied on", "partition.go", "p.doubts.word || r.Outside", "p.doubts.word"},

	// Taking over more than there is memory for.
	{"all are read again at once, whatever they take", "takeover.go", "if replaying < 2 {", "if replaying < 1<<20 {"},
	{"a replay that gave way does not begin again", "takeover.go", "\t\tnext.waits = false\n", ""},
	{"what was found again is kept by who gives way", "takeover.go", "least.begin(e, *least.replay, e.now)", "least.read = least.replay.Low"},

	// The clocks.
	{"the guard judges by the wall clock", "../watermark/guard.go", "case t <= g.Limit():\n\t\treturn true\n\tcase g.Skew > 0 && t >", "case g.Skew <= 0:\n\t\treturn true\n\tcase t >"},
	{"the guard remembers no verdict", "../watermark/guard.go", "return t > g.steps[i].Limit", "return false"},
	{"the guard forgets too many steps", "../watermark/guard.go", "g.steps[keep+1].Offset <= offset", "g.steps[keep+1].Offset <= offset+3"},
	{"the guard takes two steps for one", "../watermark/guard.go", "case last >= 0 && (!g.any || g.refused > limit):", "case last >= 0:"},
	{"the guard has no end of room", "../watermark/guard.go", "if len(g.steps) >= MaxSteps {", "if len(g.steps) > 1<<20 {"},
	{"a guard switched on judges by the past", "../watermark/guard.go", "g.step(Step{offset, None})", "g.step(Step{offset, Max - 1})"},
	{"a guard that waits to be off lets everything pass", "../watermark/guard.go", "if g.Skew <= 0 && len(g.steps) == 0 {", "if g.Skew <= 0 && (len(g.steps) == 0 || len(g.steps) == MaxSteps) {"},
	{"a guard that waits to be on judges", "../watermark/guard.go", "return true // switched on", "return t <= wall.Add(g.Skew) // switched on"},
	{"the loss of records leaves the steps", "../watermark/guard.go", "min(g.steps[i].Offset, next)", "g.steps[i].Offset"},
	{"a gap between answers is time", "../watermark/stretch.go", " || sent.Sub(s.Last) > Gap", ""},
	{"an end that goes back is no other log", "../watermark/stretch.go", " || high < s.End", ""},
	{"an open transaction is silence", "../watermark/stretch.go", "if stable < high {", "if false {"},
	{"a question without an answer breaks nothing", "../watermark/stretch.go", "s.Last, s.whole = sent, false", "s.Last = sent"},
	{"a stretch counts from before the last sign of life", "../watermark/idle.go", "max(heard.First, i.from)", "heard.First"},
	{"what is unread does not matter", "partition.go", "p.replay == nil && p.next >= heard.End && !behind", "p.replay == nil && !behind"},
	{"a broker that is behind is believed", "partition.go", " && !behind)", " && (behind || !behind))"},
	{"idle time counts while records are read again", "replay.go", "\tp.Stir() // whoever reads again has not been listening\n", ""},
	{"idle time is handed out twice", "../watermark/idle.go", "\ti.drained = beyond\n", ""},
	{"the timeout is not waited for", "../watermark/idle.go", "i.last.Sub(i.since) - i.Timeout", "i.last.Sub(i.since)"},
	{"what is not quiet counts", "../watermark/idle.go", "if !heard.whole || !read || i.Timeout <= 0 {", "if i.Timeout <= 0 {"},
	{"the clock drains beyond the newest", "../watermark/clock.go", "min(c.W.Add(d), newest)", "c.W.Add(d)"},
}

// mutationsOfPrevious are about records without a time of their own.
var mutationsOfPrevious = []mutation{
	{"any of a key lends", "previous.go", "!found || t > l.time {", "!found || t != l.time {"},
	{"who has lent goes when it is out", "group.go", "if g.named || p.lent(e.ref) {", "if g.named {"},
	{"who has lent is not remembered", "group.go", "g.add(&p.store, ref) == original || p.lent(ref) {", "g.add(&p.store, ref) == original {"},
	{"what is out lends", "previous.go", "\t\t\tdelete(p.lenders, key)\n", ""},
	{"the edge is not committed", "snapshot.go", "s.Edge = p.edgeFrom(&s)", ""},
	{"the edge is not written", "metadata.go", "if s.Edge != 0 {", "if s.Edge < 0 {"},
	{"without a lender all are at the edge", "previous.go", "p.replay.Edge != 0 && r.Offset >= p.replay.Edge", "true"},
	{"the edge of a release is above it", "previous.go", "\t\t\tp.edge.Time = s.Frontier.Time\n", ""},
	{"the edge of an epoch is that of the last", "partition.go", "\tp.edge = Position{}\n", ""},
	{"the first at the edge is the last", "previous.go", "if p.edge.Offset == 0 || p.edge.Time != r.Time {", "if true {"},
	{"a record without a time is in the window", "partition.go", "\tif previous {\n\t\treturn\n\t}\n", ""},
	{"a record without a time repeats another", "group.go", "return nameless // its time is not its own", "_ = store"},
	{"a record without a time is the newest", "replay.go", "if !r.Previous {\n\t\tp.clock.Max", "{\n\t\tp.clock.Max"},
	{"the edge never drains", "previous.go", "return max(p.clock.Max, p.edge.Time)", "return p.clock.Max"},
	{"an edge that is out is flushed", "previous.go", "p.edge.Offset == 0 || p.edge.Time <= p.clock.W {", "p.edge.Offset == 0 {"},
	{"a time that is lent is relied on", "previous.go", "\tp.doubts.from(r.Time)\n", ""},
	{"that there is no time is relied on", "previous.go", "\t\tp.doubts.word = true\n", ""},
}

// mutationsVar asks for TestMutations: 1 for the whole table, K/N for every Nth line from
// number K on, beginning at 0.
const mutationsVar = "TIDEMARK_TEST_MUTATIONS"

// TestMutations breaks the code in each of these ways, and the simulation has
// to see it: by a law and a seed, not by failing to compile. It shows what the
// simulation is worth.
func TestMutations(t *testing.T) {
	part, parts := 0, 1
	switch v := os.Getenv(mutationsVar); v {
	case "":
		t.Skip("compiles the tests once for each mutation; " + mutationsVar + "=1 runs it")
	case "1":
	default:
		if n, err := fmt.Sscanf(v, "%d/%d", &part, &parts); n != 2 || part < 0 || part >= parts {
			t.Fatalf("%s=%s: want 1, or K/N with K below N: %v", mutationsVar, v, err)
		}
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		if out, err := simulateWith(t, nil); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
	for i, m := range slices.Concat(mutations, mutationsOfPrevious) {
		if i%parts != part {
			continue
		}
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			out, err := simulateWith(t, &m)
			switch found := foundAfter.FindString(out); {
			case err == nil:
				t.Errorf("%s: nobody noticed", m.name)
			case !strings.Contains(out, "--- FAIL: TestSimulation") || found == "":
				t.Errorf("%s: failed otherwise than by a law: %v\n%s", m.name, err, out)
			default:
				t.Log(found)
			}
		})
	}
}

// foundAfter is what hunt says of the histories it took.
var foundAfter = regexp.MustCompile(`found after \d+ histories`)

// TestMutationsAreUpToDate: a table that no longer fits the code breaks nothing.
func TestMutationsAreUpToDate(t *testing.T) {
	var names []string
	for _, m := range slices.Concat(mutations, mutationsOfPrevious) {
		src, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), m.was); n != 1 {
			t.Errorf("%s: %q stands %d times in %s, and has to once", m.name, m.was, n, m.file)
		}
		if slices.Contains(names, m.name) {
			t.Errorf("%s stands twice in the table", m.name)
		}
		names = append(names, m.name)
	}
}

// simulateWith runs the simulation in a child process, with a mutation laid
// over the source.
func simulateWith(t *testing.T, m *mutation) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args := []string{"test", "-count=1", "-vet=off", "-gcflags=-dwarf=false", "-ldflags=-s", "-timeout=4m", "-run", "^TestSimulation$"}
	if m != nil && slices.Contains(mutationsOfPrevious, *m) {
		args[len(args)-1] = "^TestSimulationOfPrevious$"
	}
	if m != nil {
		args = append(args, "-overlay", overlay(t, m))
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TIDEMARK_TEST_") })
	n := 40_000 // some are rare
	if m == nil {
		n = 10_000 // its own tests, and other seeds, see to the rest
	}
	cmd.Env = append(cmd.Env, fmt.Sprint("TIDEMARK_TEST_HISTORIES=", n), failuresVar+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// overlay writes the mutated file, and the list that tells the compiler.
func overlay(t *testing.T, m *mutation) string {
	path, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(src), m.was) != 1 {
		t.Fatalf("%s: %q has to stand in %s once", m.name, m.was, m.file)
	}
	dir := t.TempDir()
	mutant, list := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{mutant: strings.Replace(string(src), m.was, m.is, 1), list: string(replace)} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
