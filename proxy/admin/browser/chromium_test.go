package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// screenshotsVar names a directory for what the pages of these tests look like.
const screenshotsVar = "TIDEMARK_TEST_SCREENSHOTS"

var chromium context.Context // one for all tests; nil: there is none

func TestMain(m *testing.M) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run()) // each is skipped
	}
	all, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))...)
	var end context.CancelFunc
	chromium, end = chromedp.NewContext(all)
	if err := chromedp.Run(chromium); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	end()
	stop()
	os.Exit(code)
}

// tab is an empty page of the browser.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string // of all that may be asked for

	mu       sync.Mutex
	trouble  []string // what the browser complained of, and what it asked for elsewhere
	tolerant bool     // of requests that fail
}

// phone and desk are sizes of windows, in CSS pixels.
var (
	desk  = [2]int64{1280, 900}
	phone = [2]int64{360, 760}
)

// open opens a page, which may ask nothing of anybody but its own server.
func open(t *testing.T, address string, window [2]int64, before ...chromedp.Action) *tab {
	t.Helper()
	if chromium == nil {
		t.Skip("there is no chromium; on Debian: apt-get install chromium")
	}
	ctx, end := chromedp.NewContext(chromium)
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	b := &tab{t: t, ctx: ctx, base: at.Scheme + "://" + at.Host + "/"}
	chromedp.ListenTarget(ctx, b.event)
	b.run(cdplog.Enable(), runtime.Enable(), network.Enable(), emulation.SetDeviceMetricsOverride(window[0], window[1], 1, window == phone))
	b.run(before...)
	b.run(chromedp.Navigate(address))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, what := range b.trouble {
			t.Error(what)
		}
	})
	return b
}

// event listens to what the browser has to say.
func (b *tab) event(e any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := e.(type) {
	case *cdplog.EventEntryAdded: // violations of the policy, files that are not there
		if !b.tolerant && e.Entry.Level != cdplog.LevelVerbose {
			b.trouble = append(b.trouble, fmt.Sprintf("the browser says: %s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventConsoleAPICalled:
		b.trouble = append(b.trouble, fmt.Sprintf("the console has a line: %s", e.Args[0].Value))
	case *runtime.EventExceptionThrown:
		b.trouble = append(b.trouble, e.ExceptionDetails.Error())
	case *page.EventJavascriptDialogOpening:
		b.trouble = append(b.trouble, "a dialog opens: "+e.Message)
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.base) {
			b.trouble = append(b.trouble, "it asks elsewhere: "+e.Request.URL)
		}
	}
}

// tolerate says that from now on requests may fail.
func (b *tab) tolerate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tolerant = true
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// ask evaluates an expression in the page.
func ask[T any](b *tab, expression string) (v T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &v))
	return v
}

// until waits for an expression to become true.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ask[bool](b, expression) {
			return
		}
	}
	b.t.Fatalf("%s: it does not come to that. The page:\n%s", what, ask[string](b, "document.body.innerText.slice(0, 2000)"))
}

// theme has pages be light or dark.
func theme(name string) chromedp.Action {
	return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}})
}

// look keeps what the page looks like, if that is asked for, as far as a window of so
// many pixels shows it; 0: all of it.
func (b *tab) look(name string, high int64) {
	b.t.Helper()
	dir := os.Getenv(screenshotsVar)
	if dir == "" {
		return
	}
	var picture []byte
	if high == 0 {
		b.run(chromedp.FullScreenshot(&picture, 100))
	} else {
		b.run(chromedp.CaptureScreenshot(&picture))
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// legible checks what each page is to be, in both themes: named, readable, and not
// wider than the window.
func (b *tab) legible() {
	b.t.Helper()
	for _, name := range []string{"light", "dark"} {
		b.run(theme(name))
		var faults []string
		if err := json.Unmarshal([]byte(ask[string](b, legible)), &faults); err != nil {
			b.t.Fatal(err)
		}
		slices.Sort(faults)
		for _, f := range slices.Compact(faults) {
			b.t.Errorf("%s: %s", name, f)
		}
	}
}

// legible is what axe would say, of what there is on this page.
const legible = `(() => {
	const faults = [];
	const fault = (what, e) => faults.push(what + ": <" + e.tagName + " class=" + (e.getAttribute("class") || "") + "> " + e.textContent.trim().slice(0, 40));
	if (document.documentElement.scrollWidth > innerWidth) {
		faults.push("the page is " + document.documentElement.scrollWidth + " wide, and the window " + innerWidth);
	}
	const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
	const bright = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	const seen = (e) => e.checkVisibility() && e.getClientRects().length > 0;
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (texts.nextNode()) {
		const e = texts.currentNode.parentElement;
		if (!texts.currentNode.data.trim() || !seen(e) || e.closest("noscript, script")) continue;
		const style = getComputedStyle(e), svg = e.namespaceURI.endsWith("svg");
		const [a, b] = [bright(rgb(svg ? style.fill : style.color)), bright(ground(e))];
		if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) fault("it has too little contrast", e);
		if (parseFloat(style.fontSize) < 12) fault("it is small", e);
		const box = e.getBoundingClientRect();
		if (svg && (box.right > innerWidth + 1 || box.left < -1)) fault("it is cut off", e);
	}
	for (const e of document.querySelectorAll("svg[role=img]")) if (!e.getAttribute("aria-label")) fault("it has no label", e);
	for (const e of document.querySelectorAll("button, a, summary")) {
		if (seen(e) && !e.textContent.trim()) fault("it has no name", e);
		if (seen(e) && e.tagName !== "A" && e.getBoundingClientRect().height < 24) fault("it is hard to hit", e);
	}
	for (const e of document.querySelectorAll("svg:not([role=img]):not([aria-hidden])")) if (!e.parentElement.closest("svg")) fault("it has no role", e);
	const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
	if (new Set(ids).size !== ids.length) faults.push("an id is given twice");
	for (const need of ["html[lang]", "title", "h1", "main", "meta[name=viewport]"]) if (!document.querySelector(need)) faults.push("there is no " + need);
	return JSON.stringify(faults);
})()`
