package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/tidemarkhq/tidemark/proxy/admin/page"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// short is for tests that wait for records to come out. Many are late with it.
var short = []string{"TIDEMARK_MAX_OUT_OF_ORDERNESS=2s", "TIDEMARK_IDLE_TIMEOUT=2s", "TIDEMARK_LATE_LIMIT=0"}

// The page shows what goes on, by itself, and leaves alone what somebody reads.
func TestPageLives(t *testing.T) {
	s := sidecar(t, 6, short...)
	s.payments(5, 80, 9*time.Second) // and then they drain; one has never a record
	b := open(t, s.address, desk, theme("light"))
	b.until("records come out", ordered+" > 500")
	b.legible()
	b.run(theme("light"))

	b.run(chromedp.Evaluate(`window.same = true; document.getElementById("payments/1").querySelector("summary").click()`, nil))
	b.until("the row is open", `document.getElementById("payments/1").querySelector(".body") !== null`)
	b.look("light", 900)
	b.run(theme("dark"))
	b.look("dark", 900)
	b.run(emulation.SetDeviceMetricsOverride(1280, 300, 1, false), chromedp.Evaluate(`
		document.getElementById("payments/3").querySelector("summary").focus();
		scrollTo(0, 500);
		window.was = { y: scrollY, held: document.getElementById("payments/1").querySelector(".body").innerText }`, nil))
	b.until("what is open is new", `document.getElementById("payments/1").querySelector(".body").innerText !== was.held`)
	state := ask[string](b, `JSON.stringify([window.same, document.getElementById("payments/1").open,
		document.activeElement.parentElement.id, scrollY === was.y && scrollY > 0])`)
	if state != `[true,true,"payments/3",true]` {
		t.Errorf("[same page, open, focus, same place] = %s", state)
	}
	b.run(chromedp.Evaluate(`document.activeElement.blur(); document.querySelectorAll("[open]").forEach((d) => d.open = false)`, nil))
	b.until("a partition drains or is idle", `document.querySelectorAll(".partition.draining, .partition.idle").length > 1`)

	pause := `document.getElementById("pause")`
	b.run(chromedp.Evaluate(pause+`.click()`, nil), chromedp.Sleep(300*time.Millisecond))
	was := ask[string](b, `document.querySelector("main").innerText`)
	b.run(chromedp.Sleep(2500 * time.Millisecond))
	if now := ask[string](b, `document.querySelector("main").innerText`); now != was {
		t.Error("the page goes on when it is paused")
	}
	b.run(chromedp.Evaluate(pause+`.click()`, nil))
	b.until("it goes on", fmt.Sprintf(`document.querySelector("main").innerText !== %s`, quoted(was)))

	b.tolerate()
	close(s.silent)
	b.until("that nobody answers is said", `document.getElementById("link").textContent.startsWith("No answer since")`)
}

// ordered is how many records have come out, by the page.
const ordered = `Number(document.querySelector(".figure .note").textContent.replace(/\D/g, ""))`

func quoted(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// The worst comes first by itself, but not while a row is open.
func TestPageReorders(t *testing.T) {
	var board changing
	show := func(states ...status.PartitionState) {
		st := &status.Status{At: time.Now(), State: status.Healthy}
		for i, state := range states {
			st.Partitions = append(st.Partitions, status.Partition{
				Topic: topic, Partition: int32(i), State: state, Hold: status.Hold{Words: "nothing is held"},
			})
		}
		board.Store(st)
	}
	show(status.Idle, status.Idle, status.Idle)
	server := httptest.NewServer(page.Handler(&board))
	defer server.Close()
	b := open(t, server.URL+"/", desk)
	order := func(want string) string {
		return `[...document.querySelectorAll(".partition")].map((p) => p.id + " " + p.className.split(" ")[1]).join() === ` + quoted(want)
	}
	show(status.Idle, status.Stopped, status.Idle)
	b.until("what stands still is first", order("payments/1 stopped,payments/0 idle,payments/2 idle"))
	b.run(chromedp.Evaluate(`document.getElementById("payments/0").querySelector("summary").click()`, nil))
	show(status.Idle, status.Idle, status.Stopped, status.Idle)
	b.until("what is open stays in its place", order("payments/1 idle,payments/0 idle,payments/2 stopped,payments/3 idle"))
	show(status.Idle, status.Idle, status.Stopped)
	b.run(chromedp.Evaluate(`document.querySelector("[open]").open = false`, nil))
	b.until("it goes up once nothing is open", order("payments/2 stopped,payments/0 idle,payments/1 idle"))
}

// changing is a board that shows what it is told to.
type changing struct{ atomic.Pointer[status.Status] }

// Status returns what is shown.
func (c *changing) Status(context.Context) *status.Status { return c.Load() }

// All that there is to know is there without a script.
func TestPageWithoutScript(t *testing.T) {
	s := sidecar(t, 3)
	s.payments(3, 40, time.Minute)
	b := open(t, s.address, desk, emulation.SetScriptExecutionDisabled(true))
	b.run(chromedp.Navigate(s.address))
	text := ask[string](b, `document.body.textContent`)
	for _, want := range []string{"billing-0", "bounded, bound 4.0 s", "exactly-once", "3 partitions", "Reload", "Next to come out", "Disorder"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if ask[bool](b, `!document.getElementById("pause").hidden`) {
		t.Error("there is a button that does nothing")
	}
	b.run(chromedp.Click("#partitions summary", chromedp.ByQuery))
	b.until("the row opens", `document.querySelector("#partitions details").open`)
	b.run(chromedp.Click(".link a", chromedp.ByQuery), chromedp.WaitVisible("#partitions summary", chromedp.ByQuery))
}

// Every state can be seen, on a desk and on a phone, and what somebody puts into a name
// does no harm.
func TestPageOfEveryState(t *testing.T) {
	states, err := os.ReadFile("../page/testdata/states.html")
	if err != nil {
		t.Fatal(err)
	}
	const still = `<script src="page.js" defer></script>` // it shows a moment
	files := http.FileServer(http.Dir("../page"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			files.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write([]byte(strings.Replace(string(states), still, "", 1)))
	}))
	defer server.Close()
	for name, window := range map[string][2]int64{"desk": desk, "phone": phone} {
		t.Run(name, func(t *testing.T) {
			b := open(t, server.URL+"/", window)
			b.legible()
			b.run(chromedp.Evaluate(`document.querySelectorAll("details").forEach((d, i) => d.open = i < 5)`, nil))
			b.legible()
			b.run(theme("light"))
			b.look("states-"+name, 0)
		})
	}
}

// With the keyboard alone each partition can be come to, in the order in which they
// stand, seen to be come to, and opened.
func TestPageByKeyboard(t *testing.T) {
	s := sidecar(t, 4)
	b := open(t, s.address, phone)
	var at []string
	for range 12 {
		b.run(chromedp.KeyEvent(kb.Tab))
		at = append(at, ask[string](b, `(() => {
			const e = document.activeElement, style = getComputedStyle(e);
			if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) return "it cannot be seen to have the focus";
			return e.id || e.parentElement.id || e.textContent;
		})()`))
		if at[len(at)-1] == "payments/1" {
			b.run(chromedp.KeyEvent(kb.Enter))
			b.until("it opens", `document.getElementById("payments/1").open`)
		}
		if at[len(at)-1] == "metrics" {
			break
		}
	}
	if got, want := strings.Join(at, ", "), "pause, payments/0, payments/1, payments/2, payments/3, status, metrics"; got != want {
		t.Errorf("Tab goes to %s, want %s", got, want)
	}
}

// Hundreds of partitions are shown, and shown again, in a moment.
func TestPageOfManyPartitions(t *testing.T) {
	const partitions = 300
	s := sidecar(t, partitions, short...)
	s.payments(partitions, 1, time.Minute)
	b := open(t, s.address, desk, theme("light"))
	b.until("records come out", ordered+" > 3000")
	b.run(chromedp.Evaluate(`performance.clearResourceTimings(); window.longest = 0;
		new PerformanceObserver((l) => l.getEntries().forEach((e) => longest = Math.max(longest, e.duration))).observe({ type: "longtask" })`, nil))
	b.until("it is new", `performance.getEntriesByType("resource").length > 1`)
	t.Logf("the longest task took %.0f ms, and %s bytes came", ask[float64](b, "longest"), ask[string](b, `String(performance.getEntriesByType("resource")[0].transferSize)`))
	if got := ask[int](b, `document.querySelectorAll("#partitions > details").length`); got != partitions {
		t.Errorf("there are %d rows", got)
	}
	b.look("many", 900)
	b.run(emulation.SetDeviceMetricsOverride(phone[0], phone[1], 1, true))
	b.legible()
	b.run(chromedp.Evaluate(`document.getElementById("counts").scrollIntoView()`, nil))
	b.look("many-phone", 900)
}

// The picture in the README is one of a real run.
func TestPicture(t *testing.T) {
	dir := os.Getenv(screenshotsVar)
	if dir == "" {
		t.Skip("nobody wants a picture: " + screenshotsVar + " names no directory")
	}
	s := sidecar(t, 8)
	s.payments(6, 160, time.Minute)
	s.payments(7, 40, 8*time.Second) // the last is idle by then
	b := open(t, s.address, [2]int64{1200, 900}, theme("light"))
	b.until("records come out", ordered+" > 15000")
	b.look("status-page", 0)
	b.run(chromedp.Evaluate(`document.getElementById("payments/2").querySelector("summary").click()`, nil), chromedp.Sleep(time.Second))
	b.look("open", 0)
	if info, err := os.Stat(filepath.Join(dir, "status-page.png")); err != nil || info.Size() > 200_000 {
		t.Errorf("the picture is too large for a README: %v, %v", info.Size(), err)
	}
}
