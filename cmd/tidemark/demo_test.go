package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// shortDemo is what happened in the first moments of the story.
func shortDemo(t *testing.T) (*demo, *bytes.Buffer) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	events := slices.DeleteFunc(tellStory(1), func(e storyEvent) bool { return e.happened < 0 || e.happened > time.Second/2 })
	var out bytes.Buffer
	s := newScreen(&out, &out)
	return &demo{events: events, screen: s, log: s.logger(false), sidecar: proxy.Run, verify: verifyOutputs}, &out
}

func TestDemoDoesNotProve(t *testing.T) {
	d, out := shortDemo(t)
	var found []verify.Report
	d.verify = func(ctx context.Context, cfg config.Config) ([]verify.Report, error) {
		var err error
		if found, err = verifyOutputs(ctx, cfg); err != nil || !d.holds(found) {
			t.Errorf("%v: %+v", err, found)
		}
		first := verify.Fault{Topic: storyTopic, Partition: 1, SourceOffset: 7, OutputOffset: -1, Why: "gone"}
		found[1].Faults = map[verify.Kind]verify.Faults{verify.KindLost: {Total: 1, First: []verify.Fault{first}}}
		return found, nil
	}
	if err := d.run(t.Context()); exitCode(err) != exitNotHeld {
		t.Errorf("exit %d: %v", exitCode(err), err)
	}
	if text := out.String(); !strings.Contains(text, "  1 lost, 0 duplicate") || !strings.Contains(text, "DOES NOT HOLD") || strings.Contains(text, "It holds") {
		t.Error(text)
	}

	found[1].Faults = nil
	if !d.holds(found) {
		t.Error("without the fault it does not hold either")
	}
	if found[2].Buffered++; d.holds(found) {
		t.Error("holds with a record held back")
	}
	if found[2].Buffered--; d.holds(found[:2]) {
		t.Error("holds without a partition")
	}
	if d.seen.late++; d.holds(found) {
		t.Error("holds with a record too many")
	}
}

func TestDemoWithoutSidecar(t *testing.T) {
	d, _ := shortDemo(t)
	d.sidecar = func(context.Context, config.Config, *slog.Logger) error { return errors.New("sprung a leak") }
	err := d.run(t.Context())
	if exitCode(err) != exitFailed || err.Error() != "the sidecar: sprung a leak" {
		t.Errorf("exit %d: %v", exitCode(err), err)
	}
}

func TestDemoStops(t *testing.T) {
	d, _ := shortDemo(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	stop, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	context.AfterFunc(ctx, interrupt)
	began := time.Now()
	err := d.run(stop)
	if exitCode(err) != exitFailed || err.Error() != "stopped before the end" {
		t.Errorf("exit %d: %v", exitCode(err), err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestDemoKeepsTheStatusPage: while the demo is kept, its page is where the demo says.
func TestDemoKeepsTheStatusPage(t *testing.T) {
	d, out := shortDemo(t)
	d.keep, d.sidecar = true, d.shown
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/`)
	url := ""
	for url == "" {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		d.screen.mu.Lock()
		url = address.FindString(out.String())
		d.screen.mu.Unlock()
	}
	get := func(path string) string {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s%s: %s, %v", url, path, resp.Status, err)
		}
		return string(body)
	}
	if page := get(""); !strings.Contains(page, "<html") || !strings.Contains(page, storyTopic) {
		t.Errorf("the page is %s", page)
	}
	var st struct {
		State      string
		Partitions []struct{ Topic string }
	}
	if err := json.Unmarshal([]byte(get("status")), &st); err != nil || len(st.Partitions) != storyPartitions || st.Partitions[0].Topic != storyTopic {
		t.Errorf("%+v, %v", st, err)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("the page outlives the demo")
	}
}

func TestScreenDrawsOver(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, err: &out, live: true, width: func() int { return 9 }}
	s.redraw([]string{"one", "two and a half"})
	s.logger(false).Error("hm")
	s.redraw([]string{"three"})
	s.freeze()
	s.print("four")
	got := regexp.MustCompile(`[\d:.]+ ERR`).ReplaceAllString(out.String(), "ERR")
	const again = "\r\x1b[2A\x1b[J"
	if want := "one\ntwo and a\n" + again + "sidecar: ERR hm\none\ntwo and a\n" + again + "three\n\nfour\n"; got != want {
		t.Errorf("%q\nis not\n%q", got, want)
	}
}
