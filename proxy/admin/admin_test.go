package admin

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
	"github.com/tidemarkhq/tidemark/reorder"
	"github.com/tidemarkhq/tidemark/watermark"
)

var update = flag.Bool("update", false, "write the expected files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is expected; with -update it is written anew:\n%s", file, got)
	}
}

// shown is a board that always shows the same.
type shown status.Status

func (s *shown) Status(context.Context) *status.Status { return (*status.Status)(s) }

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func at(t time.Time) watermark.Time { return watermark.Time(t.UnixNano()) }

// example is a status with a partition of every kind.
func example() *status.Status {
	st := &status.Status{
		Facts: status.Facts{
			Instance: "pod-0", Group: "billing", Topics: []string{"orders", "returns"}, Delivery: config.ExactlyOnce,
			EventTime: `header "event-time" (ms since 1970, or RFC 3339), else the record's own timestamp`, Sources: []string{"header:event-time", "timestamp", "none"},
			Strategy: config.Bounded, Bound: 5 * time.Second, IdleTimeout: 5 * time.Second, Memory: 256 << 20, MaxFuture: 2500 * time.Millisecond,
		},
		Version: "v1.2.3", Started: noon.Add(-time.Hour), Cluster: "q1Zm8XQ1T8qPzJmPV9uIaw", At: noon,
		State: status.Degraded, Reason: "orders partition 1 is suspended: it does not fit", Reasons: []string{"orders partition 1 is suspended: it does not fit"}, Hints: []string{"make it fit"}, Ready: true, Bytes: 4096,
		Blocked: []fault.OpenTransaction{
			{Topic: "orders", Offset: 125, Behind: 5, Seen: noon, ProducerID: -1, Unknown: errors.New("describe its producers: TOPIC_AUTHORIZATION_FAILED")},
			{Topic: "orders.ordered", Output: true, Offset: 90, Behind: 7, Seen: noon, ProducerID: 3, TransactionalID: "import", Since: noon.Add(-time.Minute)},
		},
		Counts: fault.Counts{Broker: 1, Network: 2, Record: 3, Sessions: 4, Commits: 5, Aborts: 6, Rebalances: 7, Fencings: 8, Lost: 11, Shed: 9, Pauses: 10, Throttled: fault.Throttled{Produce: 1500 * time.Millisecond, Fetch: 2 * time.Second}},
		Probes: status.Probes{
			Metadata: status.Probe{At: noon.Add(-time.Second), Took: 1500 * time.Microsecond},
			Admin:    status.Probe{At: noon.Add(-time.Second), Took: 5 * time.Second, Err: errors.New("no answer within 5s")},
		},
		Producers: []clocks.Judgement{{Topic: "orders", Finding: clocks.Behind, Lead: -time.Minute, Name: "till-17"}}, ProducersOff: 1,
		Partitions: []status.Partition{
			{
				Topic: "orders", State: status.Active, End: 130, Stable: 125, Committed: 90,
				Status: reorder.Status{Watermark: at(noon.Add(-7 * time.Second)), Newest: at(noon.Add(-2 * time.Second)), Epoch: 2, Low: 90, Next: 120, Records: 4, Owed: 4, Bytes: 4096, Bound: 5 * time.Second},
				Totals: status.Totals{Read: 110, Carried: 3, Ordered: 100, Late: [reorder.Duplicate + 1]int64{reorder.BehindWatermark: 5, reorder.Future: 1}, Dropped: 2, Lost: 1, Held: 4},
				Hold:   status.Hold{Words: "waits for the watermark, which has 1.0 s to go", Event: at(noon.Add(-6 * time.Second)), Lacks: time.Second, At: noon.Add(time.Second)}, OrderedRate: 12.5, LateRate: 0.25,
				DecidedBy: []int64{10, 99, 1}, LateCause: "the clock of producer till-17 is 1h0m0s ahead", Absent: "1 of 1000 records have header:event-time; timestamp decides for the others",
				EventTimeFinding: "timestamp seems to have seconds, and is read as milliseconds", WrongUnit: status.EventTimeUnit,
			},
			{
				Topic: "orders", Partition: 1, State: status.Stopped, Reasons: []status.Kind{status.Suspended, status.TooManyLate}, End: -1, Stable: -1, Committed: 7,
				Status: reorder.Status{Watermark: watermark.None, Newest: watermark.None, Low: 7, Next: 7},
				Hold:   status.Hold{Words: "it does not fit", Event: watermark.None},
			},
			{
				Topic: "returns", State: status.Idle, End: 3, Stable: 3, Committed: 3,
				Status: reorder.Status{Watermark: at(noon.Add(-time.Minute)), Newest: at(noon.Add(-time.Minute)), Low: 3, Next: 3, Idle: true},
				Totals: status.Totals{Read: 3, Ordered: 3},
				Hold:   status.Hold{Words: "nothing is held", Event: watermark.None},
			},
		},
	}
	h := &st.Partitions[0].Disorder
	h.Zero, h.Over, h.Seconds = 100, 1, 2e6
	h.Classes[0], h.Classes[1], h.Classes[4], h.Classes[40] = 3, 2, 1, 2
	st.Partitions[2].Disorder.Zero = 3
	st.Disorder = map[string]*status.Histogram{"orders": h, "returns": &st.Partitions[2].Disorder}
	st.Latency.Zero, st.Latency.Classes[10], st.Latency.Seconds = 50, 50, 0.3
	return st
}

// Every key of /status is in operations.md, between the heading of /status and the next.
func TestStatusKeysAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "### The keys of /status")
	section, _, ends := strings.Cut(section, "\n## ")
	if !found || !ends {
		t.Fatal("operations.md has no section about the keys of /status")
	}
	keys := 0
	var look func(of reflect.Type)
	look = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			look(of.Elem())
		case reflect.Struct:
			for f := range of.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name == "" {
					continue // of a type of others, such as a time
				}
				if keys++; !strings.Contains(section, "`"+name+"`") {
					t.Errorf("`%s` is a key of /status, and not in operations.md", name)
				}
				look(f.Type)
			}
		}
	}
	look(reflect.TypeFor[statusJSON]())
	if keys < 50 {
		t.Errorf("looked at %d keys", keys)
	}
}

func load(t *testing.T, env ...string) config.Config {
	t.Helper()
	cfg, err := config.Load(append([]string{"TIDEMARK_TOPICS=orders"}, env...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// get asks a handler, from an address.
func get(h http.Handler, path, from string, change ...func(*http.Request)) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = from, "localhost:9840"
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9840})))
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

const (
	elsewhere = "192.0.2.7:4711"
	here      = "127.0.0.1:4711"
)

// The form of /status is what others read.
func TestStatusJSON(t *testing.T) {
	r := get(Handler(load(t), (*shown)(example())), "/status", elsewhere)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s, %s", r.Status, r.Header)
	}
	golden(t, "status.json", strings.ReplaceAll(body(r), `,"`, ",\n\""))
	if got := body(get(Handler(load(t), status.NewPublisher("v1")), "/status", elsewhere)); !strings.Contains(got, `"partitions":[]`) || !strings.Contains(got, `"not_ready":"starting"`) {
		t.Errorf("before the start: %s", got)
	}
}

func TestHealth(t *testing.T) {
	st := example()
	h := Handler(load(t, "TIDEMARK_ADMIN_USERNAME=u", "TIDEMARK_ADMIN_PASSWORD=p"), (*shown)(st))
	login := func(r *http.Request) { r.SetBasicAuth("u", "p") }
	if r := get(h, "/readyz", elsewhere); r.StatusCode != 200 || body(r) != "ready\n" {
		t.Errorf("%s", r.Status)
	}
	st.Ready, st.NotReady = false, "2 partitions are to be taken up"
	if r := get(h, "/readyz", elsewhere); r.StatusCode != 503 || body(r) != "not ready\n" {
		t.Errorf("%s", r.Status)
	}
	if r := get(h, "/readyz", elsewhere, login); r.StatusCode != 503 || body(r) != "not ready: 2 partitions are to be taken up\n" {
		t.Errorf("%s", r.Status)
	}
	st.NotReadyHint = "wait"
	if r := get(h, "/readyz", elsewhere, login); body(r) != "not ready: 2 partitions are to be taken up\nhint: wait\n" {
		t.Error("what to do is not said")
	}
	// Whatever else is: a restart brings no broker back.
	st.State, st.Partitions = status.Unreachable, nil
	if r := get(h, "/livez", elsewhere); r.StatusCode != 200 || body(r) != "alive\n" {
		t.Errorf("%s", r.Status)
	}
}

// Everything but health is behind the login, if there is one.
func TestLogin(t *testing.T) {
	h := Handler(load(t, "TIDEMARK_ADMIN_USERNAME=u", "TIDEMARK_ADMIN_PASSWORD=p"), (*shown)(example()))
	for _, path := range []string{"/status", "/metrics", "/debug/pprof/heap", "/", "/nowhere"} {
		for _, c := range [][2]string{{"", ""}, {"u", ""}, {"u", "P"}, {"", "p"}, {"v", "p"}} {
			r := get(h, path, here, func(r *http.Request) {
				if c != [2]string{} {
					r.SetBasicAuth(c[0], c[1])
				}
			})
			if r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s as %v: %s", path, c, r.Status)
			}
		}
		r := get(h, path, here, func(r *http.Request) { r.SetBasicAuth("u", "p") })
		if r.StatusCode == 401 {
			t.Errorf("%s with the login: %s", path, r.Status)
		}
	}
}

// Nothing can be changed, and no answer is kept, framed or guessed at.
func TestOnlyReading(t *testing.T) {
	h := Handler(load(t), (*shown)(example()))
	for _, path := range []string{"/livez", "/readyz", "/status", "/metrics", "/debug/pprof/profile", "/nowhere"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"} {
			if r := get(h, path, here, func(r *http.Request) { r.Method = method }); r.StatusCode != 405 || r.Header.Get("Allow") == "" {
				t.Errorf("%s %s: %s", method, path, r.Status)
			}
		}
		if path == "/debug/pprof/profile" {
			continue
		}
		r := get(h, path, here)
		for key, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
			if got := r.Header.Get(key); got != want {
				t.Errorf("%s: %s: %s", path, key, got)
			}
		}
		if r.Header.Get("Content-Security-Policy") == "" || r.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %v", path, r.Header)
		}
	}
}

// Profiles are for this machine; a header does not make anybody local.
func TestProfilesAreLocal(t *testing.T) {
	h := Handler(load(t), (*shown)(example()))
	header := func(key, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(key, value) }
	}
	at := func(address string) func(*http.Request) {
		return func(r *http.Request) {
			to := net.Addr(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)))
			*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, to))
		}
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	for _, c := range []struct {
		from   string
		change func(*http.Request)
		want   int
	}{
		{here, nil, 200},
		{here, at("[::1]:9840"), 200},
		{here, at("[::ffff:127.0.0.1]:9840"), 200},
		{"[::ffff:127.0.0.1]:5", nil, 200},
		{"[::ffff:192.0.2.7]:5", nil, 403},
		{"127.0.0.6:5", at("10.0.0.5:9840"), 403}, // the proxy of a mesh
		{here, host("127.0.0.1:9840"), 200},
		{here, host("[::1]"), 200},
		{here, host("LOCALHOST"), 200},
		{here, host("evil.example:9840"), 403}, // a name that leads here
		{here, host("localhost.evil.example"), 403},
		{here, host(""), 403},
		{"[::1]:5", nil, 200},
		{"127.8.9.10:5", nil, 200},
		{elsewhere, nil, 403},
		{"[2001:db8::1]:5", nil, 403},
		{"", nil, 403},
		{"localhost:5", nil, 403},
		{elsewhere, header("X-Forwarded-For", "127.0.0.1"), 403},
		{elsewhere, header("X-Real-IP", "127.0.0.1"), 403},
		{here, header("X-Forwarded-For", "192.0.2.7"), 403},
		{here, header("Forwarded", "for=192.0.2.7"), 403},
	} {
		change := c.change
		if change == nil {
			change = func(*http.Request) {}
		}
		for _, path := range []string{"/debug/pprof/heap", "/debug/pprof/goroutine?debug=2"} {
			if r := get(h, path, c.from, change); r.StatusCode != c.want {
				t.Errorf("%s from %s: %s, want %d", path, c.from, r.Status, c.want)
			}
		}
	}
	began := time.Now()
	if r := get(h, "/debug/pprof/profile?seconds=1", here); r.StatusCode != 200 || len(body(r)) == 0 || time.Since(began) < time.Second {
		t.Errorf("%s after %v", r.Status, time.Since(began))
	}
	if r := get(h, "/debug/pprof/cmdline", here); r.StatusCode != 404 {
		t.Errorf("arguments are shown: %s", r.Status)
	}
}

// serve starts a server on a port of its own.
func serve(t *testing.T, cfg config.Config, board Board) (address string) {
	t.Helper()
	cfg.Admin = "127.0.0.1:0"
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(Serve(l, cfg, board, slog.New(slog.DiscardHandler)))
	return l.Addr().String()
}

// A port that is taken is known before anything else is done, with the way out.
func TestTakenPort(t *testing.T) {
	cfg := load(t)
	cfg.Admin = config.AdminAddress(serve(t, cfg, (*shown)(example())))
	_, err := Listen(cfg)
	fault, ok := errors.AsType[*fault.Fault](err)
	if !ok || fault.Code != 2 || !strings.Contains(fault.Advice, "TIDEMARK_ADMIN=off") || !strings.Contains(fault.Advice, "another process") {
		t.Errorf("%v", err)
	}
	cfg.Admin = ""
	if l, err := Listen(cfg); l != nil || err != nil {
		t.Errorf("off, and %v, %v", l, err)
	}
	Serve(nil, cfg, nil, nil)()
}

// Who asks too much, or says it too slowly, is cut off, and others are answered.
func TestAbuse(t *testing.T) {
	t.Parallel()
	address := serve(t, load(t), (*shown)(example()))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	slow := dial()
	_, _ = io.WriteString(slow, "GET /livez HTTP/1.1\r\nHost: x\r\nX: ")
	began := time.Now()

	large := dial()
	go func() {
		_, _ = io.WriteString(large, "GET /livez HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	}()
	if r, err := http.ReadResponse(bufio.NewReader(large), nil); err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of a megabyte: %s", r.Status)
	}
	r, err := http.Get("http://" + address + "/livez")
	if err != nil || r.StatusCode != 200 {
		t.Errorf("beside that: %v", err)
	}
	if testing.Short() {
		return
	}
	_ = slow.SetReadDeadline(time.Now().Add(4 * headerTimeout))
	if _, err := io.ReadAll(slow); errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < headerTimeout-time.Second {
		t.Errorf("a slow one was cut off after %v: %v", time.Since(began), err)
	}
}

// Whoever keeps connections open, and says nothing, does not keep a probe out.
func TestManyConnections(t *testing.T) {
	address := serve(t, load(t), (*shown)(example()))
	open := func() net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	oldest := open()
	for range maxConns + 10 {
		open()
	}
	asking := http.Client{Timeout: headerTimeout / 2} // sooner they do not go by themselves
	for range 2 * maxConns {                          // nor does one that asks again and again use up the places
		r, err := asking.Get("http://" + address + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		if got := body(r); got != "alive\n" {
			t.Fatal(got)
		}
		asking.CloseIdleConnections()
	}
	_ = oldest.SetReadDeadline(time.Now().Add(headerTimeout / 2))
	if _, err := oldest.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the oldest is still open")
	}
}

// No secret is in any answer, whatever fails.
func TestCanary(t *testing.T) {
	const canary = "hunter2-the-canary"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody is there
	cfg := load(t, "TIDEMARK_BROKERS="+l.Addr().String(), "TIDEMARK_SASL_MECHANISM=PLAIN", "TIDEMARK_SASL_USERNAME=me", "TIDEMARK_SASL_PASSWORD="+canary,
		"TIDEMARK_ADMIN_USERNAME=u", "TIDEMARK_ADMIN_PASSWORD="+canary)
	board := status.NewPublisher("v1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- proxy.RunOn(ctx, cfg, slog.New(slog.DiscardHandler), board) }()
	h := Handler(cfg, board)
	login := func(r *http.Request) { r.SetBasicAuth("u", canary) }
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		st := board.Status(ctx)
		if st.State == status.Unreachable || time.Now().After(deadline) {
			if st.State != status.Unreachable || st.Ready || st.Counts.Network == 0 {
				t.Errorf("nobody is there, and it says %s: %s", st.State, st.Reason)
			}
			break
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/status", "/metrics", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/", "/status?x=1"} {
		for _, change := range []func(*http.Request){login, func(*http.Request) {}} {
			if strings.Contains(body(get(h, path, here, change)), canary) {
				t.Errorf("the password is in %s", path)
			}
		}
	}
	cancel()
	<-ended
}
