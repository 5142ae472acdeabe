package reorder

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios put out into testdata")

// TestScenarios plays the scripts in testdata, which are there to be read. A
// script is commands, a line of dashes, and what they led to up to the next
// empty line; # begins a comment. Event times and watermarks are in ms since
// 1970, the times of answers in seconds of the process.
//
//	start OPTIONS         an engine with one partition; bound=5ms idle=1s
//	                      future=40ms reanchor=3 memory=1000 (bytes) dedup
//	                      previous; strategies:
//	                      window=5ms lateness=1ms, markers, or adaptive=100000
//	                      (late in a million) floor=1ms, with bound the ceiling
//	partition N           go on with another partition of the same engine
//	wall T                the wall clock, for the records that follow
//	read T..              write records and read them; T may be "invalid",
//	                      T=a for one that is known by a, T/k for one with
//	                      the key k, -/k for one without a time, T@M for one
//	                      that carries the watermark M, or ?T: an outside service
//	                      cannot tell T, and can when the record is read again
//	step T..              the same, without taking what comes due
//	next N                take up to N records that are due
//	hole N                the log has N offsets without a record
//	quiet S.. | busy S..  the broker answers questions sent at S
//	relieve               make room
//	commit                make durable what came out, with a snapshot
//	crash OPTIONS         lose the rest, start again, perhaps otherwise
//	passed N              what is committed has its L at N
//	delete N | cut N | rewritten N
//	                      the log loses a record, its end; a new leader
//	                      writes it from N on
//	accept                go on in spite of a loss
//	log                   everything that is durable, in order
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if err := try(func() { got = play(string(script)) }); err != nil {
				t.Fatal(err)
			}
			if got == string(script) {
				return
			}
			if !*rewrite {
				t.Fatalf("%s: got\n%s\nIf that is right: go test ./reorder -run Scenarios -rewrite", file, firstChange(got, string(script)))
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func firstChange(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d: %s\nwant:   %s", i+1, strings.Join(g[i:min(i+5, len(g))], "\n"), strings.Join(w[min(i, len(w)):min(i+5, len(w))], "\n"))
		}
	}
	return "less than there was"
}

// play returns the script with what it leads to.
func play(script string) string {
	var out strings.Builder
	var s stage
	lines := strings.Split(strings.TrimRight(script, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		fmt.Fprintln(&out, line)
		switch {
		case line == "----":
			out.WriteString(s.trace.String())
			s.trace.Reset()
			for i+1 < len(lines) && lines[i+1] != "" {
				i++
			}
		case line != "" && line[0] != '#':
			s.do(strings.Fields(line))
		}
	}
	return out.String()
}

// stage is what a script acts on.
type stage struct {
	world // the partition under way
	all   map[int]*world
	which int
	wall  watermark.Time
	trace strings.Builder
}

func (s *stage) do(args []string) {
	cmd, args := args[0], args[1:]
	switch cmd {
	case "start":
		s.world = world{eng: s.engine(args)}
		s.opts = s.eng.opts
		s.all = map[int]*world{}
		s.partition(0)
	case "partition":
		s.partition(int(number(args[0])))
	case "wall":
		s.wall = millis(args[0])
	case "read", "step":
		for _, t := range args {
			s.write(t)
			for s.more() {
				if s.read(); cmd == "step" {
					break
				}
				s.drain()
			}
		}
	case "next":
		for range number(args[0]) {
			s.next()
		}
	case "hole":
		s.end += number(args[0])
		s.p.Skip(s.end, s.leader())
	case "quiet", "busy":
		for _, at := range args {
			sec, _ := strconv.ParseFloat(at, 64)
			now := watermark.Instant(sec * float64(time.Second))
			e := event{now: now, answer: quiet, sent: now, looked: true}
			if cmd == "busy" {
				e.answer = unread
			}
			s.begins(e)
			s.drain()
		}
	case "relieve":
		p := s.eng.Relieve()
		for i, w := range s.all {
			if w.p == p {
				s.say("partition %d gives way, W=%s", i, ms(p.Watermark()))
				s.partition(i)
				s.drain()
			}
		}
	case "commit":
		c := s.commit()
		s.p.Advance()
		if c.Releasing {
			s.say("  frontier=#%d t=%s", c.Frontier.Offset, ms(c.Frontier.Time))
		}
		for _, g := range c.Steps {
			s.say("  from #%d the guard's limit is %s", g.Offset, ms(g.Limit))
		}
		if c.Edge != 0 {
			s.say("  at the edge from #%d", c.Edge)
		}
		for _, g := range c.Settled {
			s.say("  settled from #%d to #%d", g.From, g.To-1)
		}
	case "crash":
		if len(args) > 0 {
			s.eng.Revoke(s.p)
			s.p, s.eng = nil, s.engine(args)
			s.opts = s.eng.opts
		}
		s.assign(false)
	case "passed":
		s.was.Low = number(args[0])
		s.low, s.text = s.was.Low, s.was.Encode(s.at)
	case "accept":
		s.p.EndReplay(s.end, true)
		s.accepted()
	case "delete":
		i := s.pick(number(args[0]))
		s.world.log = append(s.world.log[:i], s.world.log[i+1:]...)
	case "cut":
		s.end = number(args[0])
		s.world.log = s.world.log[:s.pick(s.end)]
	case "rewritten":
		for i := s.pick(number(args[0])); i < len(s.world.log); i++ {
			s.world.log[i].LeaderEpoch++
		}
	case "log":
		s.say("%s", strings.TrimSuffix(list(s.out), "\n"))
	default:
		s.failf("unknown command %s", cmd)
	}
	s.keep()
}

func (s *stage) say(format string, a ...any) { fmt.Fprintf(&s.trace, format+"\n", a...) }

func (s *stage) engine(args []string) *Engine {
	var o Options
	budget := int64(math.MaxInt64)
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		d, _ := time.ParseDuration(value)
		switch key {
		case "bound":
			o.Bound = d
		case "idle":
			o.IdleTimeout = d
		case "future":
			o.MaxFuture = d
		case "reanchor":
			o.ReanchorAfter = int(number(value))
		case "window":
			o.Strategy, o.Window = watermark.WindowMin, d
		case "lateness":
			o.Lateness = d
		case "markers":
			o.Strategy = watermark.Punctuated
		case "adaptive":
			o.Strategy, o.TargetLate = watermark.Adaptive, int(number(value))
		case "floor":
			o.Floor = d
		case "memory":
			budget = number(value)
		case "previous":
			o.Previous = true
		case "dedup":
			o.Identity = firstByte{}
		default:
			s.failf("unknown option %s", key)
		}
	}
	return NewEngine(o, budget)
}

// partition turns to another partition, which may be a new one.
func (s *stage) partition(i int) {
	if s.p != nil {
		s.keep()
	}
	if s.all[i] == nil {
		w := newWorld(s.eng, nil)
		w.at.Partition = int32(i)
		w.ids = map[int64]byte{}
		w.start(Fresh(0, 0, 0))
		w.begin()
		s.all[i] = w
	}
	s.world, s.which = *s.all[i], i
	s.world.trace = &s.trace
}

func (s *stage) keep() {
	if s.all != nil {
		*s.all[s.which] = s.world
	}
}

func (s *stage) write(t string) {
	r := logged{Record: Record{Offset: s.end, LeaderEpoch: s.leader()}, wall: s.wall, marker: watermark.None}
	t, marker, marked := strings.Cut(t, "@")
	if marked {
		r.marker = millis(marker)
	}
	t, id, known := strings.Cut(t, "=")
	if known {
		s.ids[s.end] = id[0]
	}
	t, key, _ := strings.Cut(t, "/")
	if s.opts.Previous {
		r.Key = 1 << 20
		for _, c := range key {
			r.Key = uint64(c) << 8
		}
	}
	if t == "-" {
		r.Previous, r.Time = true, watermark.None
	} else if t == "invalid" {
		r.Invalid, r.Time = true, watermark.None
	} else if later, ok := strings.CutPrefix(t, "?"); ok {
		r.Invalid, r.Outside, r.doubtful, r.Time = true, true, true, millis(later)
	} else {
		r.Time = millis(t)
	}
	s.world.log = append(s.world.log, r)
	s.end++
}

func (s *stage) leader() int32 {
	if n := len(s.world.log); n > 0 {
		return s.world.log[n-1].LeaderEpoch
	}
	return 0
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(violation(err.Error()))
	}
	return n
}

// millis is the inverse of ms.
func millis(s string) watermark.Time {
	whole, rest, _ := strings.Cut(s, ".")
	t := watermark.Time(number(whole) * 1e6)
	if rest != "" {
		part := watermark.Time(number((rest + "000000")[:6]))
		if s[0] == '-' {
			part = -part
		}
		t += part
	}
	return t
}
