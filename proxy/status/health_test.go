package status

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/reorder"
)

// Both probes are weighed, and a start is not a fault unless it goes on, or comes after one.
func TestStateIsWeighed(t *testing.T) {
	now := time.Now()
	ok, bad := Probe{At: now}, Probe{At: now, Err: errors.New("away")}
	for _, c := range []struct {
		metadata, admin Probe
		notReady        string
		change          func(*Status)
		want            State
	}{
		{ok, ok, "", nil, Healthy},
		{ok, ok, "joining", nil, Starting},
		{Probe{}, Probe{}, "", nil, Starting},
		{Probe{}, Probe{}, "joining", nil, Starting},
		{ok, ok, "joining", func(st *Status) { st.WasReady = true }, Degraded},
		{ok, ok, "somebody else is in the group", func(st *Status) { st.Trouble = true }, Degraded},
		{ok, ok, "joining", func(st *Status) { st.Started = now.Add(-2 * startingFor) }, Degraded},
		{ok, ok, "joining", func(st *Status) { st.Waits = "waiting for the brokers for 5s: a place in the group" }, Degraded},
		{bad, ok, "", nil, Degraded},
		{ok, bad, "", nil, Degraded},
		{bad, bad, "", nil, Unreachable},
		{bad, bad, "joining", nil, Unreachable},
	} {
		st := Status{At: now, Started: now, Probes: Probes{c.metadata, c.admin}, NotReady: c.notReady}
		if c.change != nil {
			c.change(&st)
		}
		if st.judge(now); st.State != c.want || (st.State == Healthy) != (st.Reason == "") || st.Ready != (c.notReady == "") {
			t.Errorf("%+v: %s, %s", c, st.State, st.Reason)
		}
	}
}

// What is in the way of what users came for is a reason, and the most important is the first.
func TestReasons(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	lately := func(read int64, late map[reorder.Verdict]int64) func(*Status) {
		return func(st *Status) {
			r := &st.Partitions[0].Recent
			r.Read, r.Judged = read, now
			for v, n := range late {
				r.Late[v] = n
			}
		}
	}
	foreign := fault.OpenTransaction{Topic: "raw.ordered", Output: true, Offset: 7, Behind: 120, TransactionalID: "x", ProducerID: 3, Since: now.Add(-time.Minute)}
	upstream := fault.OpenTransaction{Topic: "raw", Offset: 9, Behind: 1, TransactionalID: "y", ProducerID: 4, Since: now.Add(-time.Minute)}
	given := map[Kind]bool{}
	for _, c := range []struct {
		name   string
		change func(*Status)
		want   []string // what reasons begin with; none: it is healthy
	}{
		{"nothing is wrong", func(*Status) {}, nil},
		{"no event times", lately(3, map[reorder.Verdict]int64{reorder.InvalidTime: 3}), []string{"raw partition 0: none of the last 3 records had a usable event time"}},
		{"no event times, though any share may be late", func(st *Status) {
			lately(100, map[reorder.Verdict]int64{reorder.InvalidTime: 100})(st)
			st.LateLimit = 0
		}, []string{"raw partition 0: none of the last 100 records"}},
		{"mostly late", lately(1000, map[reorder.Verdict]int64{reorder.BehindWatermark: 900, reorder.Future: 40}), []string{"raw partition 0: 94 % of the last 1000 records were late, mostly behind-watermark"}},
		{"mostly late, and it is known why", func(st *Status) {
			lately(1000, map[reorder.Verdict]int64{reorder.BehindWatermark: 940})(st)
			st.Partitions[0].LateCause = "offset 5 is 1h0m0s ahead"
		}, []string{"raw partition 0: 94 % of the last 1000 records were late, mostly behind-watermark (older than the bound allows); TIDEMARK_LATE_LIMIT=0.05"}},
		{"mostly ahead, and it is known whose", func(st *Status) {
			lately(1000, map[reorder.Verdict]int64{reorder.Future: 940})(st)
			st.MaxFuture = 2 * time.Hour
			st.Producers = []clocks.Judgement{
				{Topic: "other", Finding: clocks.Ahead, Name: "d1", Lead: 4 * time.Hour},
				{Topic: "raw", Finding: clocks.Ahead, Name: "d2", Lead: 3 * time.Hour},
				{Topic: "raw", Finding: clocks.Behind, Name: "d3", Lead: -time.Hour},
			}
		}, []string{"raw partition 0: 94 % of the last 1000 records were late, mostly future (ahead of the wall clock by more than TIDEMARK_MAX_FUTURE=2h0m0s); TIDEMARK_LATE_LIMIT=0.05"}},
		{"at the limit", lately(1000, map[reorder.Verdict]int64{reorder.BehindWatermark: 50}), nil},
		{"above the limit", lately(1000, map[reorder.Verdict]int64{reorder.Overflow: 51}), []string{"raw partition 0: 5.1 % of the last 1000 records were late, mostly overflow (TIDEMARK_MEMORY"}},
		{"one of few", lately(19, map[reorder.Verdict]int64{reorder.BehindWatermark: 1}), nil},
		{"few, and five of them", lately(6, map[reorder.Verdict]int64{reorder.BehindWatermark: 5}), []string{"raw partition 0: 83.3 % of the last 6 records were late"}},
		{"duplicates", lately(100, map[reorder.Verdict]int64{reorder.Duplicate: 90}), nil},
		{"any share may be late", func(st *Status) {
			lately(100, map[reorder.Verdict]int64{reorder.BehindWatermark: 99})(st)
			st.LateLimit = 0
		}, nil},
		{"late long ago", func(st *Status) {
			lately(1000, map[reorder.Verdict]int64{reorder.BehindWatermark: 900})(st)
			st.Partitions[0].Recent.Judged = now.Add(-2 * lateMemory)
		}, nil},
		{"nothing comes out", func(st *Status) {
			p := &st.Partitions[0]
			p.Totals.Held, p.Recent.Moved, p.Hold.Words = 5, now.Add(-3*time.Minute), "waits for the watermark, which has 5s to go"
		}, []string{"raw partition 0: nothing has come out for 3 min, and 5 records are held: waits for the watermark"}},
		{"nothing could come out before it was taken up", func(st *Status) {
			p := &st.Partitions[0]
			p.Totals.Held, p.Recent.Moved, p.Age = 5, now.Add(-time.Hour), 9*time.Second
		}, nil},
		{"nothing can have come out yet", func(st *Status) {
			p := &st.Partitions[0]
			p.Totals.Held, p.Recent.Moved, st.Bound = 5, now.Add(-3*time.Minute), time.Hour
		}, nil},
		{"a source that no record has", func(st *Status) {
			st.Sources, st.SourcesAreSet = []string{"json:createdAt", "timestamp", "none"}, true
			st.Partitions[0].DecidedBy, st.Partitions[0].Absent = []int64{0, 1000, 0}, "0 of 1000 records have json:createdAt"
		}, []string{"raw: all records are ordered by their own timestamps, not by TIDEMARK_EVENT_TIME: 0 of 1000 records have json:createdAt"}},
		{"a source that one record has", func(st *Status) {
			st.Sources, st.SourcesAreSet = []string{"json:createdAt", "timestamp", "none"}, true
			st.Partitions[0].DecidedBy = []int64{1, 100_000, 0}
		}, nil},
		{"a default that no record has", func(st *Status) {
			st.Sources = []string{"header:event-time", "timestamp", "none"}
			st.Partitions[0].DecidedBy = []int64{0, 100_000, 0}
		}, nil},
		{"a default that no record has, and something like it", func(st *Status) {
			st.Sources = []string{"header:event-time", "timestamp", "none"}
			p := &st.Partitions[0]
			p.DecidedBy, p.Similar, p.Absent = []int64{0, 1000, 0}, true, "there is header:Event-Time"
		}, []string{"raw: all records are ordered by their own timestamps, not by header:event-time: there is header:Event-Time"}},
		{"a default that few records were asked for", func(st *Status) {
			st.Sources = []string{"header:event-time", "timestamp", "none"}
			st.Partitions[0].DecidedBy, st.Partitions[0].Similar = []int64{0, 999, 0}, true
		}, nil},
		{"an epoch every few seconds", func(st *Status) { st.Partitions[0].EpochsOften = now.Add(-90 * time.Second) }, []string{"raw partition 0: event times jump back so often"}},
		{"epochs long ago", func(st *Status) { st.Partitions[0].EpochsOften = now.Add(-3 * time.Minute) }, nil},
		{"nothing is held", func(st *Status) { st.Partitions[0].Recent.Moved = now.Add(-time.Hour) }, nil},
		{"stale", func(st *Status) { st.At = now.Add(-13 * time.Second) }, []string{"this is how things were 13 s ago"}},
		{"stale, and it is known why", func(st *Status) {
			st.At, st.Waits = now.Add(-13*time.Second), "waiting for the brokers for 13s: acknowledgements"
		}, []string{"waiting for the brokers for 13s"}},
		{"an output is held open", func(st *Status) { st.Blocked = []fault.OpenTransaction{foreign} }, []string{`another program (transactional id "x") holds raw.ordered partition 0 open since 2026-11-20T11:59:00Z: readers of committed records see nothing from offset 7 on`}},
		{"a source is held open", func(st *Status) { st.Blocked = []fault.OpenTransaction{upstream} }, []string{`a producer (transactional id "y") holds raw partition 0 open`}},
		{"outputs without partitions", func(st *Status) {
			p := &st.Partitions[0]
			p.State, p.Hold.Words = WaitingForOutputs, "its outputs have too few partitions"
			st.NotReady, st.OutputsMissing = "1 partitions are without a partition in the outputs", true
		}, []string{"raw partition 0 is suspended: its outputs have too few partitions"}},
		{"timestamps replaced", func(st *Status) { st.Restamped = []string{"raw.ordered"} }, []string{"raw.ordered replaces the timestamps"}},
		{"an end that is not known at once", func(st *Status) { st.Partitions[0].End, st.Partitions[0].Age = -1, 5*time.Second }, nil},
		{"an end that is not known", func(st *Status) { st.Partitions[0].End, st.Partitions[0].Age = -1, time.Minute }, []string{"raw partition 0: its leader has not said for 1 min where the log ends"}},
		{"a leader that does not answer for a moment", func(st *Status) { st.Partitions[0].Unanswered = 9 * time.Second }, nil},
		{"a leader that does not answer", func(st *Status) {
			st.Partitions[0].Unanswered, st.Partitions[0].NoAnswer = 70*time.Second, errors.New("LEADER_NOT_AVAILABLE")
		}, []string{"raw partition 0: its leader has not said for 1 min 10 s where the log ends (LEADER_NOT_AVAILABLE)"}},
		{"nothing is read", func(st *Status) {
			p := &st.Partitions[0]
			p.Silent, p.Hold.Words = 2*time.Minute, "nothing is held"
		}, []string{"raw partition 0: nothing has been read for 2 min, and 3 offsets are to be read: nothing is held"}},
		{"nothing is read, so nothing comes out", func(st *Status) {
			p := &st.Partitions[0]
			p.Silent, p.Totals.Held, p.Recent.Moved = 3*time.Minute, 5, now.Add(-3*time.Minute)
		}, []string{"raw partition 0: nothing has been read for 3 min"}},
		{"nothing is read, and nothing is there", func(st *Status) { st.Partitions[0].Silent, st.Partitions[0].Next = time.Hour, 10 }, nil},
		{"nothing is read for a moment", func(st *Status) { st.Partitions[0].Silent = 50 * time.Second }, nil},
		{"nothing is read behind an open transaction", func(st *Status) {
			p := &st.Partitions[0]
			p.Silent, p.Totals.Held, p.Recent.Moved = time.Hour, 5, now.Add(-time.Hour)
			st.Blocked, p.Blocked = []fault.OpenTransaction{upstream}, &upstream
		}, []string{`a producer (transactional id "y") holds raw`}},
		{"it waits for a slower one", func(st *Status) {
			p := &st.Partitions[0]
			p.State, p.Silent, p.Totals.Held, p.Recent.Moved = Paused, time.Hour, 5, now.Add(-time.Hour)
		}, nil},
		{"the wrong unit", func(st *Status) {
			p := &st.Partitions[0]
			p.WrongUnit, p.EventTimeFinding, p.Totals.Held, p.Recent.Moved = EventTimeUnit, "seconds", 5, now.Add(-time.Hour)
		}, []string{"raw partition 0: seconds"}},
		{"throttled", func(st *Status) { st.Throttled = "throttled by a quota" }, []string{"throttled by a quota, 3 records behind"}},
		{"the worst first", func(st *Status) {
			lately(100, map[reorder.Verdict]int64{reorder.Overflow: 50})(st)
			st.ShortOfMemory, st.Rival, st.Blocked = true, "somebody writes", []fault.OpenTransaction{upstream, foreign}
			st.Probes.Admin.Err, st.NotReady, st.WasReady = errors.New("no answer within 5s"), "3 partitions are to be taken up", true
		}, []string{"the group's coordinator", "3 partitions", "another program", "a producer", "raw partition 0: 50 %", "somebody writes", "memory is short"}},
		{"nobody is there", func(st *Status) {
			st.Probes.Metadata.Err, st.Probes.Admin.Err = errors.New("connection refused"), errors.New("connection refused")
			st.NotReady, st.Trouble = "starting over from the last commit: connection refused", true
		}, []string{"no broker answers: connection refused"}},
		{"nobody is there, and what follows", func(st *Status) {
			st.Probes.Metadata.Err, st.Probes.Admin.Err = errors.New("connection refused"), errors.New("connection refused")
			p := &st.Partitions[0]
			p.Silent, p.Unanswered, p.Totals.Held, p.Recent.Moved = time.Hour, time.Hour, 5, now.Add(-time.Hour)
		}, []string{"no broker answers: connection refused"}},
		{"nobody is there at the start", func(st *Status) {
			st.Probes.Metadata.Err, st.Probes.Admin.Err = errors.New("connection refused"), errors.New("connection refused")
			st.Started, st.NotReady = now, "waiting for the brokers to describe the topics"
		}, []string{"no broker answers: connection refused"}},
		{"said once", func(st *Status) {
			st.Waits, st.NotReady, st.Trouble = "waiting for the brokers for 9s: offsets", "waiting for the brokers for 9s: offsets", true
		}, []string{"waiting for the brokers for 9s: offsets"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := Status{At: now, Started: now.Add(-time.Hour), Probes: Probes{Probe{At: now}, Probe{At: now}}, Partitions: make([]Partition, 1)}
			st.LateLimit = 50_000
			st.Partitions[0] = Partition{Topic: "raw", State: Active, End: 10, Stable: 10, Age: time.Hour}
			st.Partitions[0].Next = 7
			c.change(&st)
			st.judge(now)
			for i, why := range st.why {
				given[why.kind] = true
				if i > 0 && slices.Index(Kinds, why.kind) < slices.Index(Kinds, st.why[i-1].kind) {
					t.Errorf("%q is the less important", st.Reasons[i-1])
				}
			}
			if len(st.Reasons) != len(c.want) || (st.State == Healthy) != (len(c.want) == 0) || strings.Join(st.Reasons, "; ") != st.Reason {
				t.Fatalf("%s: %q", st.State, st.Reasons)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(st.Reasons[i], want) {
					t.Errorf("%q, and it should begin with %q", st.Reasons[i], want)
				}
			}
			if sorted := slices.Clone(st.Reasons); len(slices.Compact(sorted)) != len(st.Reasons) {
				t.Errorf("said twice: %q", st.Reasons)
			}
		})
	}
	for _, kind := range Kinds {
		if !given[kind] {
			t.Errorf("no case is about: %s", kind)
		}
	}
	if len(given) != len(Kinds) {
		t.Errorf("given are %v, listed %v", given, Kinds)
	}
}

// What is wrong with several partitions of a topic for the same reason is said once, with what
// to do; each of them has the reason, and nobody else's copy of them is changed.
func TestReasonsOfManyPartitions(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	late := func(p *Partition, read, n int64) {
		p.Recent.Read, p.Recent.Judged, p.Recent.Late[reorder.BehindWatermark] = read, now, n
	}
	held := func(p *Partition, held int64, quiet time.Duration, words, kind, hint string) {
		p.Totals.Held, p.Recent.Moved, p.Hold = held, now.Add(-quiet), Hold{Words: words, Kind: kind, Hint: hint}
	}
	open := func(topic string, partition int32, id string, behind int64) *fault.OpenTransaction {
		return &fault.OpenTransaction{Topic: topic, Partition: partition, Output: topic != "raw", Offset: 7, Behind: behind, TransactionalID: id, ProducerID: 3, Since: now.Add(-time.Minute)}
	}
	for _, c := range []struct {
		name   string
		change func(st *Status, ps []Partition)
		want   []string
		hint   string // of the first
		kinds  [4]Kind
	}{
		{"the wrong unit", func(_ *Status, ps []Partition) {
			for i := range ps {
				ps[i].WrongUnit, ps[i].EventTimeFinding = EventTimeUnit, "seconds"
			}
		}, []string{"raw partitions 0, 1, 2: seconds", "other partition 0: seconds"}, "", [4]Kind{WrongUnit, WrongUnit, WrongUnit, WrongUnit}},
		{"late", func(_ *Status, ps []Partition) {
			late(&ps[0], 1000, 900)
			late(&ps[1], 3000, 100)
			late(&ps[2], 3000, 2300)
		}, []string{"raw partitions 0, 2: 80 % of the last 4000 records were late, mostly behind-watermark"}, "", [4]Kind{TooManyLate, "", TooManyLate, ""}},
		{"no markers", func(_ *Status, ps []Partition) {
			for i := range 2 {
				held(&ps[i], 5, time.Duration(3+i)*time.Minute, "waits for a record", "", "check the name")
			}
		}, []string{"raw partitions 0, 1: nothing has come out for 3 min, and 10 records are held: waits for a record"}, "check the name", [4]Kind{NothingOut, NothingOut, "", ""}},
		{"nothing comes", func(_ *Status, ps []Partition) {
			held(&ps[0], 5, 3*time.Minute, "the last ones 3 min ago", "no idle timeout", "set one")
			held(&ps[1], 5, 4*time.Minute, "the last ones 4 min ago", "no idle timeout", "set one")
			held(&ps[2], 5, 4*time.Minute, "something else", "", "")
		}, []string{"raw partitions 0, 1: nothing has come out for 3 min, and 10 records are held: the last ones 3 min ago", "raw partition 2: nothing"}, "set one", [4]Kind{NothingOut, NothingOut, NothingOut, ""}},
		{"suspended", func(_ *Status, ps []Partition) {
			for i := range 2 {
				ps[i].State, ps[i].Hold.Words = WaitingForSchema, "schema 7 is gone"
			}
		}, []string{"raw partitions 0, 1 are suspended: schema 7 is gone"}, "", [4]Kind{Suspended, Suspended, "", ""}},
		{"ends", func(_ *Status, ps []Partition) { ps[0].Unanswered, ps[1].Unanswered = time.Minute, 2*time.Minute }, []string{"raw partitions 0, 1: their leaders have not said for 1 min where the log ends"}, "", [4]Kind{EndNotKnown, EndNotKnown, "", ""}},
		{"held open", func(st *Status, ps []Partition) {
			a, b, c := open("raw.ordered", 0, "x", 3), open("raw.ordered", 2, "x", 4), open("raw.late", 1, "y", 1)
			st.Blocked = []fault.OpenTransaction{*c, *a, *b}
			ps[0].Hidden, ps[1].LateHidden, ps[2].Hidden = a, c, b
		}, []string{
			`another program (transactional id "y") holds raw.late partition 1 open`,
			`another program (transactional id "x") holds raw.ordered partitions 0, 2 open since 2026-11-20T11:59:00Z: readers of committed records see nothing from its first records on until it ends, and 7 offsets are behind it`,
		}, "look at it: kafka-transactions", [4]Kind{OutputHeldOpen, OutputHeldOpen, OutputHeldOpen, ""}},
		{"a source held open", func(st *Status, ps []Partition) {
			a := open("raw", 1, "x", 3)
			st.Blocked, ps[1].Blocked = []fault.OpenTransaction{*a}, a
		}, []string{`a producer (transactional id "x") holds raw partition 1 open`}, "look at it: kafka-transactions", [4]Kind{"", SourceHeldOpen, "", ""}},
		{"somebody is in the group", func(st *Status, _ []Partition) {
			st.NotReady, st.NotReadyHint, st.Trouble = "the group has members", "stop them", true
		}, []string{"the group has members"}, "stop them", [4]Kind{}},
		{"many topics", func(_ *Status, ps []Partition) {
			for i := range ps {
				ps[i].Topic, ps[i].EpochsOften = string(rune('a'+i)), now
			}
		}, []string{"a partition 0: event times jump", "b partition 1: ", "c partition 2: ", "epochs begin often in 1 more topics"}, "", [4]Kind{EpochsOften, EpochsOften, EpochsOften, EpochsOften}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ps := make([]Partition, 4)
			for i := range ps {
				ps[i] = Partition{Topic: "raw", Partition: int32(i), State: Active, End: 10, Stable: 10, Age: time.Hour}
				ps[i].Next = 10
			}
			ps[3].Topic, ps[3].Partition = "other", 0
			st := Status{At: now, Started: now.Add(-time.Hour), Probes: Probes{Probe{At: now}, Probe{At: now}}, Partitions: ps}
			st.LateLimit = 50_000
			c.change(&st, ps)
			st.judge(now)
			if len(st.Reasons) != len(c.want) || len(st.Hints) != len(c.want) {
				t.Fatalf("%q, %q", st.Reasons, st.Hints)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(st.Reasons[i], want) {
					t.Errorf("%q, and it should begin with %q", st.Reasons[i], want)
				}
			}
			if !strings.HasPrefix(st.Hints[0], c.hint) || (st.Hints[0] == "") != (c.hint == "") {
				t.Errorf("to do is %q, want %q", st.Hints[0], c.hint)
			}
			for i, p := range st.Partitions {
				if got := append(p.Reasons, "")[0]; got != c.kinds[i] || got != "" && got.Short() == "" {
					t.Errorf("partition %d has %q (%s), want %q", i, p.Reasons, got.Short(), c.kinds[i])
				}
				if len(ps[i].Reasons) > 0 {
					t.Error("the partitions of all are changed")
				}
			}
		})
	}
}

// The documented reasons are those that there are, in their order.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| reason | when |\n|---|---|\n")
	if table, _, _ = strings.Cut(table, "\n\n"); !found {
		t.Fatal("there is no table of reasons")
	}
	for _, kind := range Kinds {
		if word := kind.Short(); !strings.Contains(string(page), "`"+word+"`") && word != "" {
			t.Errorf("%q is not documented", word)
		}
	}
	var documented []Kind
	for row := range strings.Lines(table) {
		documented = append(documented, Kind(strings.TrimSpace(strings.Split(row, "|")[1])))
	}
	if !slices.Equal(documented, Kinds) {
		t.Errorf("documented are\n%q\nand there are\n%q", documented, Kinds)
	}
}
