package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// procedure runs the commands of docs/cutover.md, with the names of this test.
type procedure struct {
	*stage
	group    string // of the consumer
	names    *strings.Replacer
	commands []string
}

func newProcedure(s *stage) *procedure {
	s.t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "cutover.md"))
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.ReplaceAll(string(doc), "\\\n", " ")
	p := &procedure{stage: s, group: "billing-" + s.topic}
	p.commands = regexp.MustCompile(`(?m)^ *kafka-consumer-groups\.sh .*$`).FindAllString(text, -1)
	p.names = strings.NewReplacer(
		"kafka-consumer-groups.sh", kafka+" tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"broker:9092", s.brokers, "--topic payments", "--topic "+s.topic,
		"--group billing", "--group "+p.group, "--group tidemark", "--group tidemark-"+s.topic,
		"positions.csv", filepath.Join(s.t.TempDir(), "positions.csv"),
	)
	return p
}

// run runs the one command that has the given option, and returns what it says.
func (p *procedure) run(option string) string {
	p.t.Helper()
	var found []string
	for _, c := range p.commands {
		if strings.Contains(c, option) {
			found = append(found, p.names.Replace(c))
		}
	}
	if len(found) != 1 {
		p.t.Fatalf("docs/cutover.md has %d commands with %s, want one", len(found), option)
	}
	out, err := exec.Command("bash", "-c", found[0]).CombinedOutput()
	p.t.Logf("%s\n%s", found[0], out)
	if err != nil || strings.Contains(string(out), "Error") {
		p.t.Fatalf("%s: %v\n%s", found[0], err, out)
	}
	return string(out)
}

// awaitBegun waits until Tidemark has written down where it begins.
func (p *procedure) awaitBegun() {
	p.t.Helper()
	offset := regexp.MustCompile(`(?m)^\S+ +` + p.topic + ` +\d+ +\d+ `)
	p.await("an offset for each partition", func() bool { return len(offset.FindAllString(p.run("--offsets"), -1)) == partitions })
}

// TestKafkaCutOver takes a consumer from the raw topic to the ordered one, back, and
// there again, by the commands of docs/cutover.md.
func TestKafkaCutOver(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip("needs a real Kafka: set " + brokersVar)
	}
	s := newStage(t, "cutover")
	p := newProcedure(s)
	start := "TIDEMARK_START=group:" + p.group
	seen := map[string]int{}
	consume := func(topic string, want [partitions][]string) {
		t.Helper()
		n := 0
		for _, lines := range want {
			n += len(lines)
		}
		got := s.printed(inGo, p.group, topic, n)
		for i, lines := range want {
			if !slices.Equal(got[i], lines) {
				t.Errorf("%s partition %d: got\n%q, want\n%q", topic, i, got[i], lines)
			}
			for _, line := range lines {
				seen[line]++
			}
		}
	}

	// There. The last records are held: nothing comes after them.
	s.write(600)
	consume(s.topic, s.lines(false))
	if said := p.run("--members"); !strings.Contains(said, "no active members") {
		t.Errorf("somebody is in the group: %s", said)
	}
	cut := s.lengths()
	s.write(400)
	stop := s.tidemark(start, "TIDEMARK_IDLE_TIMEOUT=0")
	p.awaitBegun()
	p.run("--to-earliest")
	s.write(300)
	consume(s.topic+".ordered", s.released(cut))
	for line, times := range seen {
		if times != 1 {
			t.Errorf("there: %q was seen %d times", line, times)
		}
	}

	// Back. What stands behind the oldest record that is held is seen again.
	stop()
	p.run("--to-current")
	p.run("--from-file")
	oldest, again := s.oldestHeld(cut)
	if again == 0 {
		t.Error("nothing is seen again, which proves nothing")
	}
	consume(s.topic, from(s.lines(false), oldest))
	twice := 0
	for _, times := range seen {
		twice += times - 1
	}
	if len(seen) != s.count() || twice != again {
		t.Errorf("back: %d of %d were seen, %d of them twice, want %d", len(seen), s.count(), twice, again)
	}

	// There again. The consumer goes on where it was in the ordered topic.
	p.run("--delete-offsets")
	cut = s.lengths()
	clear(seen)
	s.tidemark(start, "TIDEMARK_ON_RESET=new-epoch")
	p.awaitBegun()
	s.write(300)
	consume(s.topic+".ordered", s.inOrder(cut))
	if len(seen) != 300 {
		t.Errorf("there again: %d were seen, want 300", len(seen))
	}
}

// lengths are how many records each partition has; its offsets have no holes.
func (s *stage) lengths() (n [partitions]int) {
	for p, written := range s.written {
		n[p] = len(written)
	}
	return n
}

func from(lines [partitions][]string, offsets [partitions]int) [partitions][]string {
	for p := range lines {
		lines[p] = lines[p][offsets[p]:]
	}
	return lines
}

// inOrder are the lines of what was written from some offsets on, in order of event time.
func (s *stage) inOrder(offsets [partitions]int) [partitions][]string {
	rest := &stage{}
	for p, written := range s.written {
		rest.written[p] = written[offsets[p]:]
	}
	return rest.lines(true)
}

// released are those of them that a bound of one second does not hold.
func (s *stage) released(offsets [partitions]int) [partitions][]string {
	out := &stage{}
	for p, written := range s.written {
		for n, w := range written[offsets[p]:] {
			if !s.held(p, offsets[p]+n) {
				out.written[p] = append(out.written[p], w)
			}
		}
	}
	return out.lines(true)
}

// held tells whether a record is within a second of the newest of its partition.
func (s *stage) held(partition, offset int) bool {
	newest := slices.MaxFunc(s.written[partition], func(a, b payment) int { return int(a.at - b.at) })
	return s.written[partition][offset].at >= newest.at-1000
}

// oldestHeld returns the offset of the oldest record held in each partition, and how
// many behind it are not.
func (s *stage) oldestHeld(cut [partitions]int) (offsets [partitions]int, out int) {
	for p, written := range s.written {
		offsets[p] = len(written)
		for n := len(written) - 1; n >= cut[p]; n-- {
			if s.held(p, n) {
				offsets[p] = n
			}
		}
		for n := offsets[p]; n < len(written); n++ {
			if !s.held(p, n) {
				out++
			}
		}
	}
	return offsets, out
}
