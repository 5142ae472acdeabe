package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/status"
)

// hears fails unless the log has a number of lines with a text, and each word in one of them.
func (s *sidecar) hears(n int, text string, words ...string) {
	s.c.t.Helper()
	lines := s.voice.heard(text)
	if len(lines) != n {
		s.c.t.Errorf("%d lines have %q, want %d: %q", len(lines), text, n, lines)
		return
	}
	all := strings.Join(lines, "")
	for _, w := range words {
		if !strings.Contains(all, w) {
			s.c.t.Errorf("%q is not in %q", w, all)
		}
	}
}

// TestLateIsTold: late records are reported with counts that are right, the first offset, how
// far they are off, and the likely cause; a few behind the watermark are not.
func TestLateIsTold(t *testing.T) {
	const (
		behind = "records came later than the bound allows"
		future = "records are ahead of the clock of this machine"
	)
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=2s")
		send := func(n int, off time.Duration) {
			for i := range n {
				c.produce(c.cl, sent(topic, "", off, i))
				time.Sleep(10 * time.Millisecond)
			}
			c.awaitRead(s)
			time.Sleep(time.Second)
		}
		send(100, 0)
		send(5, -time.Minute)
		s.hears(0, behind)
		send(20, -time.Minute)
		s.hears(1, behind, "level=WARN", "topic="+topic, "partition=0", "records=1", "first_offset=100", "off_by=5", "total=1", "TIDEMARK_MAX_OUT_OF_ORDERNESS")
		send(1, time.Hour)
		s.hears(1, future, "level=WARN", "records=1 ", "first_offset=125", "off_by=1h0m0s", "difference of time zones")
		time.Sleep(time.Minute)
		send(40, 17*time.Minute+5*time.Second)
		s.hears(2, future, "records=10", "total=11", "off_by=17m5", "check the clock of this machine first")
		time.Sleep(time.Hour)
		send(40, 17*time.Minute+5*time.Second)
		s.hears(3, future, "records=40", "total=51", "first_offset=136")
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Late["future"] != 81 || r.Late["behind-watermark"] != 25 {
			t.Errorf("%+v", r)
		}
	})
}

// TestLeapIsTold: a record that moves the watermark by far more than its neighbours is named,
// with what it made late. A silence is no such thing.
func TestLeapIsTold(t *testing.T) {
	const leap = "a record moved the watermark ahead"
	onFake(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		s := c.start(topic, "TIDEMARK_MAX_OUT_OF_ORDERNESS=5s", "TIDEMARK_MAX_FUTURE=5m")
		send := func(n int) {
			for i := range n {
				c.produce(c.cl, sent(topic, "", -time.Duration(i*7%20)*100*time.Millisecond, i))
				time.Sleep(100 * time.Millisecond)
			}
		}
		send(100)
		time.Sleep(time.Minute)
		send(100)
		c.awaitRead(s)
		s.hears(0, leap)
		c.produce(c.cl, sent(topic, "fast", 30*time.Second, 0))
		send(400)
		c.awaitRead(s)
		if lines := s.voice.heard(leap); len(lines) != 1 && len(lines) != 2 {
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		s.hears(len(s.voice.heard(leap)), leap, "level=WARN", "topic="+topic, "partition=0", "offset=200", "source=header:event-time", "off_by=30", "TIDEMARK_MAX_FUTURE")
		s.hears(2, "records came later than the bound allows", "offset 200 is 30")
		for _, line := range s.voice.heard("records came later than the bound allows") {
			if !strings.Contains(line, "offset 200 is 30") {
				t.Errorf("the cause is another one: %q", line)
			}
		}
		c.awaitDrained(s)
		s.stop()
		late := c.verify(s.cfg).Late["behind-watermark"]
		if late < 290 || late > 330 {
			t.Errorf("%d are late", late)
		}
	})
}

// TestLateCause: why records are late follows from numbers, and the log and the state say the same.
// Disorder is no leap, and no limit on future times helps against it; a clock that is ahead is
// named with its producer, if a header tells them apart, and no header is asked for that is set.
func TestLateCause(t *testing.T) {
	besideOthers(t)
	const (
		behind = "records came later than the bound allows"
		leap   = "a record moved the watermark ahead"
	)
	device := func(name string) func(i int) string { return func(int) string { return name } }
	five := func(i int) string { return fmt.Sprint("d", i%5) }
	rng := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct {
		env   []string
		who   func(i int) string
		off   func(i int) time.Duration
		words []string // in every line and in the reason
		none  []string // in none
	}{
		"disorder": {
			nil, device("d"),
			func(int) time.Duration { return -time.Duration(rng.Int64N(int64(30 * time.Second))) },
			[]string{"raise TIDEMARK_MAX_OUT_OF_ORDERNESS=5s to ", "with TIDEMARK_WATERMARK=adaptive beside it, that is only the most"},
			[]string{"TIDEMARK_MAX_FUTURE", "moved the watermark", "TIDEMARK_REANCHOR_AFTER"},
		},
		"a clock that is ahead, and no header": {
			[]string{"TIDEMARK_MAX_FUTURE=2h"},
			five,
			func(i int) time.Duration { return time.Duration(i%5/4) * time.Hour },
			[]string{"offset 4 is 1h0m", "moved the watermark", "TIDEMARK_CLOCK_HEADER names", "TIDEMARK_MAX_FUTURE=2h0m0s let it pass: unset, it is 2.5s", "others stay late for about ", "position new-epoch"},
			[]string{"raise", "half of the bound"},
		},
		"a clock that is ahead, and any may be": {
			[]string{"TIDEMARK_MAX_FUTURE=0"},
			five,
			func(i int) time.Duration { return time.Duration(i%5/4) * time.Hour },
			[]string{"offset 4 is 1h0m", "TIDEMARK_MAX_FUTURE=0 let it pass, as it does every time: unset, it is 2.5s"},
			[]string{"raise", "lower"},
		},
		"half of the records are ahead": {
			[]string{"TIDEMARK_MAX_FUTURE=2h"},
			five,
			func(i int) time.Duration { return time.Duration(i%2) * time.Hour },
			[]string{"1h0m", "moved the watermark", "TIDEMARK_MAX_FUTURE=2h0m0s let it pass: unset, it is 2.5s", "others stay late for about ", "position new-epoch"},
			[]string{"raise"},
		},
		"a producer whose clock is ahead": {
			[]string{byDevice, "TIDEMARK_MAX_FUTURE=2h"},
			five,
			func(i int) time.Duration { return time.Duration(i%5/4) * time.Hour },
			[]string{"the clock of producer d4 is 1h0m0s ahead", "TIDEMARK_MAX_FUTURE=2h0m0s let it pass: unset, it is 2.5s", "others stay late for about ", "position new-epoch"},
			[]string{"TIDEMARK_CLOCK_HEADER", "raise"},
		},
		"a producer whose clock is behind": {
			[]string{byDevice},
			five,
			func(i int) time.Duration { return -time.Duration(i%5/4) * time.Minute },
			[]string{"the clock of producer d4 is 1m0s behind", "TIDEMARK_MAX_OUT_OF_ORDERNESS"},
			[]string{"TIDEMARK_CLOCK_HEADER", "TIDEMARK_MAX_FUTURE"},
		},
		"the watermark goes on without new events": {
			nil, device("d"),
			func(i int) time.Duration { return -time.Duration(max(i-100, 0)) * 30 * time.Millisecond }, // the same time again and again
			[]string{"went on with the clock", "TIDEMARK_IDLE_TIMEOUT=1s"},
			[]string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_REANCHOR_AFTER"},
		},
		"a producer far ahead of the limit": {
			[]string{byDevice},
			five,
			func(i int) time.Duration { return time.Duration(i%5/4) * 17 * time.Minute },
			[]string{"the clock of producer d4 is 17m0s ahead", "TIDEMARK_MAX_FUTURE=2.5s"},
			[]string{"TIDEMARK_CLOCK_HEADER", "raise"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, k *cluster) {
				topic := k.topic(1)
				s := k.start(topic, append([]string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=5s"}, c.env...)...)
				for i := 0; i < 6000; i += 5 {
					var some []*kgo.Record
					for n := i; n < i+5; n++ {
						some = append(some, sent(topic, c.who(n), c.off(n), n))
					}
					k.produce(k.cl, some...)
					time.Sleep(150 * time.Millisecond)
				}
				k.awaitRead(s)
				time.Sleep(time.Second)
				lines := slices.Concat(s.voice.heard(behind), s.voice.heard(leap), s.voice.heard("records are ahead of the clock"))
				if leaps := len(s.voice.heard(leap)); len(lines) == 0 || len(lines) > 15 || leaps > 3 { // in three minutes
					t.Fatalf("%d lines, %d of them about leaps", len(lines), leaps)
				}
				last := lines[0]
				if all := s.voice.heard(behind); len(all) > 0 {
					last = all[len(all)-1]
				} else if all := s.voice.heard("records are ahead of the clock"); len(all) > 0 {
					last = all[len(all)-1]
				}
				st := s.status()
				said := st.Reason + strings.Join(st.Hints, " ")
				if st.State != status.Degraded || !hasAll(said, c.words...) {
					t.Errorf("it is %s: %s", st.State, said)
				}
				if !hasAll(last, c.words...) {
					t.Errorf("%q lacks some of %q", last, c.words)
				}
				for _, w := range c.none {
					if strings.Contains(said, w) || strings.Contains(last, w) {
						t.Errorf("%q is in %q or %q", w, last, said)
					}
				}
				if named := slices.Contains(c.env, byDevice); (len(st.Producers) == 1 && st.ProducersOff == 1 && st.Producers[0].Name == "d4") != named {
					t.Errorf("producers are %+v of %d", st.Producers, st.ProducersOff)
				}
				s.stop()
			})
		})
	}
}

// TestSettingsThatDoHarm: what a setting does that was hardly meant is reported with the setting.
func TestSettingsThatDoHarm(t *testing.T) {
	besideOthers(t)
	for name, c := range map[string]struct {
		env   []string
		send  func(i int) time.Duration // event times, from now
		lines int
		text  string
		words []string

		partitions int
	}{
		"markers that never come": {
			[]string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=", "TIDEMARK_WATERMARK=punctuated"},
			func(int) time.Duration { return 0 },
			2, "no record carries a watermark", // once more after half a minute, and then nothing is read
			[]string{"header=watermark", "buffered=", "TIDEMARK_WATERMARK_HEADER", "level=WARN", "/0,1 "},
			2,
		},
		"an epoch every few seconds": {
			[]string{"TIDEMARK_REANCHOR_AFTER=1", "TIDEMARK_MAX_OUT_OF_ORDERNESS=1s"},
			func(i int) time.Duration { return -time.Duration(i%5) * time.Second },
			-1, "a new epoch begins",
			[]string{"epochs begin often", "TIDEMARK_REANCHOR_AFTER=1", "suppressed="},
			1,
		},
		"no idle timeout": {
			[]string{"TIDEMARK_IDLE_TIMEOUT=0"},
			func(int) time.Duration { return 0 },
			4, "there is no idle timeout", // after one minute, 30 s, a minute, two
			[]string{"TIDEMARK_IDLE_TIMEOUT", "buffered=", "first_offset=", "level=WARN"},
			1,
		},
		"no idle timeout, in many partitions": {
			[]string{"TIDEMARK_IDLE_TIMEOUT=0"},
			func(int) time.Duration { return 0 },
			4, "there is no idle timeout",
			nil, 20,
		},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, func(t *testing.T, k *cluster) {
				topic := k.topic(int32(c.partitions))
				s := k.start(topic, c.env...)
				for i := range 200 {
					r := sent(topic, "", c.send(i), i)
					r.Partition = int32(i % c.partitions)
					k.produce(k.cl, r)
					time.Sleep(500 * time.Millisecond)
				}
				if st := s.status(); (st.State == status.Degraded && strings.Contains(st.Reason, "TIDEMARK_REANCHOR_AFTER")) != (name == "an epoch every few seconds") {
					t.Errorf("it is %s: %s", st.State, st.Reason)
				}
				time.Sleep(5 * time.Minute)
				if st := s.status(); strings.Contains(st.Reason, "TIDEMARK_REANCHOR_AFTER") {
					t.Errorf("long after, it is %s: %s", st.State, st.Reason)
				}
				lines := s.voice.heard(c.text)
				if c.lines >= 0 && len(lines) != c.lines || len(lines) == 0 || len(lines) > 10 {
					t.Errorf("%d lines: %q", len(lines), lines)
				}
				for _, w := range c.words {
					if !strings.Contains(strings.Join(lines, ""), w) {
						t.Errorf("%q is not in %q", w, lines)
					}
				}
				s.stop()
			})
		})
	}
}
