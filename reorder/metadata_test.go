package reorder

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
	"pgregory.net/rapid"
)

var here = Scope{Group: "orders", TopicID: [16]byte{1, 2, 3, 0xff}, Partition: 7, Fingerprint: [4]byte{0xde, 0xad, 0, 1}}

// busy is a snapshot with all there can be in it.
func busy() Snapshot {
	const w = watermark.Time(1_763_700_000_123_456_789)
	return Snapshot{
		Origin: 5, Known: 4, Low: 81_000, LowEpoch: 3, Next: 81_234, NextEpoch: 4,
		W: w, Natural: w - 7, Max: w + 5_000_000_001, Epoch: 2, LateRun: 1,
		Releasing: true, Frontier: Position{w - 1, 81_002}, Repeats: 81_017,
		Steps:   []watermark.Step{{Offset: 80_990, Limit: w + 1}, {Offset: 81_100, Limit: w + 9}},
		Settled: []Span{{81_004, 81_005}, {81_100, 81_140}},
		Count:   200, Sum: 0x00abcdef,
	}
}

func extremes(t *rapid.T, label string) int64 {
	return rapid.OneOf(
		rapid.Int64(),
		rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}),
	).Draw(t, label)
}

func anySnapshot(t *rapid.T) Snapshot {
	low := max(extremes(t, "low"), -(extremes(t, "low") + 1), 0)
	s := Snapshot{
		Origin: extremes(t, "origin"), Known: rapid.Int32().Draw(t, "known"), Low: low, LowEpoch: rapid.Int32().Draw(t, "lowEpoch"),
		Next: max(low, extremes(t, "next")), NextEpoch: rapid.Int32().Draw(t, "nextEpoch"),
		W: watermark.Time(extremes(t, "w")), Natural: watermark.Time(extremes(t, "natural")), Max: watermark.Time(extremes(t, "max")),
		Epoch: rapid.Uint32().Draw(t, "epoch"), LateRun: int(extremes(t, "run")),
		Releasing: rapid.Bool().Draw(t, "releasing"),
		Count:     rapid.Uint32().Draw(t, "count"), Sum: rapid.Uint32().Draw(t, "sum"),
	}
	s.TimesFrom, s.TimesEpoch = extremes(t, "times from"), rapid.Uint32().Draw(t, "times epoch")
	if rapid.Bool().Draw(t, "at the edge") {
		s.Edge = extremes(t, "edge")
	}
	if s.Releasing {
		s.Frontier = Position{watermark.Time(extremes(t, "frontier")), extremes(t, "offset")}
		s.Repeats = extremes(t, "repeats")
	}
	for range rapid.IntRange(0, watermark.MaxSteps).Draw(t, "steps") {
		s.Steps = append(s.Steps, watermark.Step{Offset: extremes(t, "step"), Limit: watermark.Time(extremes(t, "limit"))})
	}
	end := s.Low
	for range rapid.IntRange(0, MaxSettled).Draw(t, "spans") {
		room := min(s.Next-s.Low, settledReach) - (end - s.Low)
		if room < 2 {
			break
		}
		from := end + rapid.Int64Range(1, max(1, room/4)).Draw(t, "gap")
		end = from + rapid.Int64Range(1, max(1, room/4)).Draw(t, "length")
		s.Settled = append(s.Settled, Span{from, end})
	}
	return s
}

func TestDecodeIsInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anySnapshot(t)
		at := Scope{
			Group: rapid.String().Draw(t, "group"), Partition: rapid.Int32().Draw(t, "partition"),
			TopicID:     [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic")),
			Fingerprint: [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "fingerprint")),
		}
		text := s.Encode(at)
		got, err := Decode(text, s.Low, s.LowEpoch, at)
		if err != nil || !same(got, s) {
			t.Fatalf("%s\nis %+v, %v\nwas %+v", text, got, err, s)
		}
		if len(text) >= MaxMetadata {
			t.Fatalf("%d bytes", len(text))
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	s := busy()
	good := s.Encode(here)
	empty := s
	empty.Low, empty.Releasing, empty.Frontier, empty.Repeats, empty.Count, empty.Sum, empty.Settled = s.Next, false, Position{}, 0, 0, 0, nil
	other := func(change func(*Scope)) Scope {
		at := here
		change(&at)
		return at
	}
	topic := other(func(at *Scope) { at.TopicID[15]++ })
	idless := other(func(at *Scope) { at.TopicID = noTopicID })
	for _, c := range []struct {
		why  string
		text string
		low  int64
		at   Scope
		want error
	}{
		{"as it was written", good, s.Low, here, nil},
		{"L shifted up", good, s.Low + 1, here, ErrForeign},
		{"L shifted down", good, s.Low - 1, here, ErrForeign},
		{"another group", good, s.Low, other(func(at *Scope) { at.Group = "order" }), ErrForeign},
		{"another partition", good, s.Low, other(func(at *Scope) { at.Partition = 8 }), ErrForeign},
		{"a recreated topic", good, s.Low, topic, ErrRecreated},
		{"a recreated topic, and L shifted", good, s.Low + 1, topic, ErrForeign},
		{"brokers that show no topic ids", good, s.Low, idless, nil},
		{"written where brokers had none", s.Encode(idless), s.Low, here, nil},
		{"neither", s.Encode(idless), s.Low, idless, nil},
		{"empty", "", s.Low, here, ErrForeign},
		{"of another program", "nothing;to=see", s.Low, here, ErrForeign},
		{"v1 and nothing else", "v1", s.Low, here, ErrForeign},
		{"v0", "v0" + good[2:], s.Low, here, ErrForeign},
		{"v2, and nothing in it that is newer than v1", "v2" + good[2:], s.Low, here, ErrForeign},
		{"a newer version", "v3;what=ever", s.Low, here, ErrNewer},
		{"a newer version, in two digits", "v10" + good[2:], s.Low, here, ErrNewer},
		{"a newer version of nothing", "v3", s.Low, here, ErrNewer},
		{"twice", good + good, s.Low, here, ErrForeign},
		{"a field too many", good + ";x=1", s.Low, here, ErrForeign},
		{"white space", good + " ", s.Low, here, ErrForeign},
		{"negative L", "v1", -1, here, ErrForeign},
		{"event times made in another way", good, s.Low, other(func(at *Scope) { at.Fingerprint[0]++ }), ErrFingerprint},
		{"the same, nothing buffered", empty.Encode(here), empty.Low, other(func(at *Scope) { at.Fingerprint[0]++ }), nil},
	} {
		got, err := Decode(c.text, c.low, s.LowEpoch, c.at)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.why, err, c.want)
		}
		if at := TopicID(c.text); err == nil && at != here.TopicID && at != noTopicID {
			t.Errorf("%s: topic id %x", c.why, at)
		}
		if (err == ErrRecreated || err == ErrFingerprint) && !same(got, s) {
			t.Errorf("%s: the snapshot reported is %+v, want %+v", c.why, got, s)
		}
	}
	for _, broken := range []Snapshot{
		{Low: 5, Next: 4}, // H below L
		{Low: -1, Next: 4},
	} {
		if _, err := Decode(broken.Encode(here), broken.Low, 0, here); !errors.Is(err, ErrForeign) {
			t.Errorf("%+v: %v, want %v", broken, err, ErrForeign)
		}
	}
	var many []Span
	for i := range int64(MaxSettled + 1) {
		many = append(many, Span{2*i + 11, 2*i + 12})
	}
	far := int64(10 + settledReach)
	for _, list := range [][]Span{
		{{10, 12}},           // L is owed
		{{11, 11}},           // empty
		{{15, 14}},           // less than that
		{{11, 13}, {13, 14}}, // they touch
		{{11, 13}, {12, 14}}, // or more
		{{20, 21}, {15, 16}}, // out of order
		{{8, 9}},             // below L
		{{far, far + 1}},     // too far
		{{far + 90, far + 101}},
		{{11, math.MinInt64}},
		{{math.MinInt64, 12}},
		many,
	} {
		s := Snapshot{Low: 10, Next: far + 100, Settled: list}
		if _, err := Decode(s.Encode(here), s.Low, 0, here); !errors.Is(err, ErrForeign) {
			t.Errorf("%v: %v, want %v", list, err, ErrForeign)
		}
	}
}

// TestDamage changes each byte to every other, and cuts the text at each.
func TestDamage(t *testing.T) {
	s := busy()
	good := s.Encode(here)
	refused := func(text string) {
		_, err := Decode(text, s.Low, s.LowEpoch, here)
		newer := text[:min(2, len(text))] > "v1" && strings.HasPrefix(text, "v")
		if !errors.Is(err, ErrForeign) && !(newer && errors.Is(err, ErrNewer)) {
			t.Fatalf("%q: %v", text, err)
		}
	}
	for i := range good {
		refused(good[:i])
		for b := range 256 {
			if byte(b) != good[i] {
				refused(good[:i] + string([]byte{byte(b)}) + good[i+1:])
			}
		}
	}
}

// TestTimesFrom: where event times came to be made in another way, nothing is buffered, so
// the offset parts the records of one way from those of the other. It stays in the commits.
func TestTimesFrom(t *testing.T) {
	before, after := here, here
	after.Fingerprint[0]++
	was := Fresh(5, 0, 0)
	was.Low, was.Next, was.W, was.Natural, was.Max = 90, 90, 7, 7, 7
	s, err := Decode(was.Encode(before), 90, 0, after)
	if err != nil || s.TimesFrom != 90 {
		t.Fatalf("taken up: %+v, %v", s, err)
	}
	p := NewEngine(Options{Bound: 1}, 1<<40).Assign(s, 0)
	p.Step(Record{Offset: 90, Time: 8}, 8)
	s = p.Snapshot()
	got, err := Decode(s.Encode(after), s.Low, 0, after)
	if err != nil || got.TimesFrom != 90 || got.Next != 91 {
		t.Errorf("committed: %+v, %v", got, err)
	}
	// The commit of where it begins is no change.
	first := Fresh(5, 0, 0)
	if s, err := Decode(first.Encode(before), 5, 0, after); err != nil || s.TimesFrom != 0 {
		t.Errorf("at the beginning: %+v, %v", s, err)
	}
	// Nor is it within a later epoch. But the epochs before were of the other way.
	first.Epoch = 3
	if s, err := Decode(first.Encode(before), 5, 0, after); err != nil || s.TimesFrom != 0 || s.TimesEpoch != 3 {
		t.Errorf("at the beginning of an epoch: %+v, %v", s, err)
	}
	was.Epoch = 3
	if s, err := Decode(was.Encode(before), 90, 0, after); err != nil || s.TimesFrom != 90 || s.TimesEpoch != 3 {
		t.Errorf("in an epoch: %+v, %v", s, err)
	}
}

// TestFreshAfter: a new epoch keeps what is known of event times as long as offsets part the
// records of one way from those of the other. Else it is the first that is known.
func TestFreshAfter(t *testing.T) {
	snap := func(from int64, epoch uint32) *Snapshot {
		return &Snapshot{Next: 200, TimesFrom: from, TimesEpoch: epoch}
	}
	for _, tt := range []struct {
		name   string
		before *Snapshot
		from   int64
		epoch  uint32
	}{
		{"always as now", snap(0, 0), 0, 0},
		{"changed before its place", snap(90, 0), 90, 0},
		{"changed at its place", snap(100, 2), 100, 2},
		{"changed behind its place", snap(101, 2), 0, 7},
		{"since an epoch", snap(0, 2), 0, 2},
		{"not known", nil, 0, 7},
	} {
		s := FreshAfter(tt.before, 100, -1, 7)
		if s.TimesFrom != tt.from || s.TimesEpoch != tt.epoch || s.Epoch != 7 || s.Origin != 100 {
			t.Errorf("%s: %+v", tt.name, s)
		}
		if got, err := Decode(s.Encode(here), 100, -1, here); err != nil || !same(got, s) {
			t.Errorf("%s: read as %+v, %v", tt.name, got, err)
		}
	}
	// TimesKnown: what is read with an error says it only of an earlier topic, of which offsets say nothing.
	was := Fresh(5, 0, 2)
	was.Low, was.Next = 8, 9
	for _, tt := range []struct {
		name   string
		change func(s *Snapshot, at *Scope)
		known  bool
	}{
		{"as it is", func(*Snapshot, *Scope) {}, true},
		{"other event times, held", func(_ *Snapshot, at *Scope) { at.Fingerprint[0]++ }, false},
		{"other event times", func(s *Snapshot, at *Scope) { s.Low = 9; at.Fingerprint[0]++ }, true},
		{"another group", func(_ *Snapshot, at *Scope) { at.Group += "x" }, false},
		{"recreated", func(_ *Snapshot, at *Scope) { at.TopicID[0]++ }, true},
		{"recreated, with other event times", func(_ *Snapshot, at *Scope) { at.TopicID[0]++; at.Fingerprint[0]++ }, false},
		{"recreated after a change", func(s *Snapshot, at *Scope) { s.TimesFrom = 7; at.TopicID[0]++ }, false},
	} {
		s, at := was, here
		tt.change(&s, &at)
		text := s.Encode(here)
		got, err := Decode(text, s.Low, 0, at)
		if known := TimesKnown(text, &got, err, at); (known != nil) != tt.known {
			t.Errorf("%s: %+v, %v", tt.name, known, err)
		}
	}
}

// TestVersion: versions of Tidemark that do not know a field refuse the text as one of a newer
// version, and read all others.
func TestVersion(t *testing.T) {
	known, edge, times, epoch := busy(), busy(), busy(), busy()
	edge.Edge, times.TimesFrom, epoch.TimesEpoch = 81_003, 81_000, 1
	for _, c := range []struct {
		s    Snapshot
		want string
	}{{known, "v1;"}, {edge, "v2;"}, {times, "v2;"}, {epoch, "v2;"}} {
		text := c.s.Encode(here)
		if !strings.HasPrefix(text, c.want) {
			t.Errorf("want %s: %s", c.want, text)
		}
		other := map[byte]string{'1': "v2", '2': "v1"}[text[1]] + text[2:]
		if _, err := Decode(other, c.s.Low, c.s.LowEpoch, here); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", other, err)
		}
	}
}

// TestMetadataSize: a commit is small, and the largest fits into a broker.
func TestMetadataSize(t *testing.T) {
	s := busy()
	s.Natural, s.Epoch, s.LateRun, s.Releasing = s.W, 0, 0, false
	s.Steps, s.Settled = s.Steps[:1], nil
	if text := s.Encode(here); len(text) > 170 {
		t.Errorf("a usual commit has %d bytes: %s", len(text), text)
	}
	s.Steps = nil
	if text := s.Encode(here); len(text) > 150 {
		t.Errorf("a usual commit without the guard has %d bytes: %s", len(text), text)
	}
	s = everything()
	text := s.Encode(here)
	if len(text) >= MaxMetadata {
		t.Errorf("the largest commit has %d bytes", len(text))
	}
	if got, err := Decode(text, 0, 0, here); err != nil || !same(got, s) {
		t.Errorf("the largest commit is read as %+v, %v", got, err)
	}
}

// everything is a snapshot whose metadata is as long as can be.
func everything() Snapshot {
	const lowest = math.MinInt64
	s := Snapshot{
		Origin: lowest, Known: math.MinInt32, Next: math.MaxInt64, NextEpoch: math.MinInt32,
		W: 1, Natural: watermark.None, Max: watermark.None, Epoch: math.MaxUint32, LateRun: lowest, TimesFrom: lowest, TimesEpoch: math.MaxUint32,
		Releasing: true, Frontier: Position{watermark.None, lowest}, Repeats: lowest, Edge: lowest, Count: math.MaxUint32, Sum: math.MaxUint32,
	}
	for range watermark.MaxSteps {
		s.Steps = append(s.Steps, watermark.Step{Offset: lowest, Limit: watermark.None})
	}
	for class := range 241 { // sixteen million records in all, as many as there may be
		s.Disorder = binary.AppendUvarint(append(s.Disorder, 0), uint64(66_000+class))
	}
	long := int64(settledReach/MaxSettled/2 - 1)
	for i := range int64(MaxSettled) {
		s.Settled = append(s.Settled, Span{(2*i + 1) * long, (2*i + 2) * long})
	}
	return s
}

// TestTogglingTheGuard: a guard that is switched off and on at each restart, while
// records come and none of them is released, does not fill its commit.
func TestTogglingTheGuard(t *testing.T) {
	const base = watermark.Time(1_763_700_000_000_000_000)
	for _, refuses := range []bool{false, true} {
		s := Fresh(0, 0, 0)
		verdicts := map[int64]Verdict{}
		step := func(p *Partition, offset int64) Verdict {
			wall := base.Add(time.Duration(offset) * 10 * time.Minute)
			r := Record{Offset: offset, Time: wall, Size: 1}
			if refuses && offset%3 == 1 {
				r.Time = wall.Add(12 * time.Minute) // the next limit is beyond it
			}
			v, _ := p.Step(r, wall)
			return v
		}
		for i := range int64(300) {
			o := Options{Strategy: watermark.Punctuated, MaxFuture: time.Duration(i%2) * 5 * time.Minute}
			p := NewEngine(o, 1<<40).Assign(s, 0)
			for offset := s.Low; offset < s.Next; offset++ {
				if v := step(p, offset); (v == OnTime) != (verdicts[offset] == OnTime) {
					t.Fatalf("#%d was %v, and is %v when it is read again", offset, verdicts[offset], v)
				}
			}
			if _, replaying := p.Replaying(); replaying {
				if loss := p.EndReplay(s.Next, false); loss != nil {
					t.Fatal(loss)
				}
			}
			for offset := s.Next; offset < s.Next+3; offset++ {
				verdicts[offset] = step(p, offset)
			}
			s = p.Snapshot()
			s.Steps = slices.Clone(s.Steps)
			if n := len(s.Steps); s.Low != 0 || n > watermark.MaxSteps || !refuses && n > 2 {
				t.Fatalf("after %d restarts L=%d, %d steps", i+1, s.Low, n)
			}
		}
		if refuses && len(s.Steps) != watermark.MaxSteps {
			t.Errorf("only %d steps", len(s.Steps))
		}
	}
}

// TestGuardAcrossRestarts: a healthy stream of which nothing comes out for hours, read
// by a process that begins again every two minutes, has one step.
func TestGuardAcrossRestarts(t *testing.T) {
	const base = watermark.Time(1_763_700_000_000_000_000)
	o := Options{Strategy: watermark.Punctuated, MaxFuture: 5 * time.Minute}
	s := Fresh(0, 0, 0)
	for i := range int64(200) {
		p := NewEngine(o, 1<<40).Assign(s, 0)
		at := func(offset int64) watermark.Time { return base.Add(time.Duration(offset) * 2 * time.Minute) }
		for offset := s.Low; offset < s.Next; offset++ {
			p.Step(Record{Offset: offset, Time: at(offset), Size: 1}, base)
		}
		if _, replaying := p.Replaying(); replaying {
			if loss := p.EndReplay(s.Next, false); loss != nil {
				t.Fatal(loss)
			}
		}
		if v, _ := p.Step(Record{Offset: i, Time: at(i), Size: 1}, at(i)); v != OnTime {
			t.Fatalf("#%d, of the present, is %v", i, v)
		}
		if s = p.Snapshot(); len(s.Steps) != 1 {
			t.Fatalf("after %d restarts there are %d steps", i, len(s.Steps))
		}
		s.Steps = slices.Clone(s.Steps)
	}
}

// FuzzDecode: no text makes it panic, and what it accepts is what it writes.
func FuzzDecode(f *testing.F) {
	s := busy()
	f.Add(s.Encode(here), s.Low)
	fresh := Fresh(0, 0, 0)
	f.Add(fresh.Encode(here), int64(0))
	other, idle := here, fresh
	other.Fingerprint[0]++
	idle.Low, idle.Next = 9, 9
	f.Add(idle.Encode(other), idle.Low)
	f.Add("v3;", int64(0))
	f.Add(fmt.Sprintf("v1;id=%s;o=0;p=0;h=9;he=0;w=-;m=0;s=1,2,1,1;b=1,00000000;f=00000000", strings.Repeat("A", 22)), int64(1))
	f.Add(fmt.Sprintf("v1;id=%s;g=1,2,3;r=;n=", strings.Repeat("A", 22)), int64(1))
	f.Fuzz(func(t *testing.T, text string, low int64) {
		// A checksum is in the way of a fuzzer: give it the right one.
		body, _, _ := strings.Cut(text, ";c=")
		for _, text := range []string{text, fmt.Sprintf("%s;c=%08x", body, checksum([]byte(body), low, here))} {
			if _, err := Decode(text, low, 0, here); err != nil {
				continue
			}
			at := here
			// With nothing buffered, another fingerprint passes.
			made, _ := hex.DecodeString(text[strings.LastIndex(text, ";f=")+3:][:8])
			copy(at.Fingerprint[:], made)
			s, err := Decode(text, low, 0, at)
			if again := s.Encode(at); err != nil || again != text {
				t.Errorf("%q is written again as %q", text, again)
			}
		}
	})
}
