package config

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tidemarkhq/tidemark/watermark"
)

// load reads a configuration that is valid but for what vars change. Each of
// them is "KEY=value" without the prefix.
func load(vars ...string) (Config, error) {
	environ := []string{"PATH=/bin", "TIDEMARK_TOPICS=orders", "TIDEMARK_INSTANCE=tidemark-0", "TIDEMARK_MEMORY=64MiB"}
	for _, v := range vars {
		environ = append(environ, Prefix+v)
	}
	return Load(environ)
}

func mustLoad(t *testing.T, vars ...string) Config {
	t.Helper()
	c, err := load(vars...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t)
	got := map[string]any{}
	for _, s := range settings {
		got[s.key] = reflect.ValueOf(c).Field(s.field).Interface()
	}
	for key, want := range map[string]any{
		"TIDEMARK_BROKERS":              []string{"localhost:9092"},
		"TIDEMARK_TOPICS":               []string{"orders"},
		"TIDEMARK_GROUP":                "tidemark",
		"TIDEMARK_WATERMARK":            Bounded,
		"TIDEMARK_MAX_OUT_OF_ORDERNESS": 5 * time.Second,
		"TIDEMARK_IDLE_TIMEOUT":         5 * time.Second,
		"TIDEMARK_MAX_FUTURE":           2500 * time.Millisecond,
		"TIDEMARK_REANCHOR_AFTER":       0,
		"TIDEMARK_MAX_DRIFT":            time.Duration(0),
		"TIDEMARK_CLOCK_HEADER":         "",
		"TIDEMARK_DEDUP":                Dedup{},
		"TIDEMARK_DUPLICATES":           DuplicatesAreLate,
		"TIDEMARK_DEDUP_REMEMBER":       100_000,
		"TIDEMARK_DELIVERY":             ExactlyOnce,
		"TIDEMARK_COMMIT_INTERVAL":      100 * time.Millisecond,
		"TIDEMARK_SESSION_TIMEOUT":      30 * time.Second,
		"TIDEMARK_TRANSACTION_TIMEOUT":  10 * time.Second,
		"TIDEMARK_ORDERED_SUFFIX":       ".ordered",
		"TIDEMARK_LATE_SUFFIX":          ".late",
		"TIDEMARK_HEADERS":              HeaderSet{Watermark: true, SourceOffset: true},
		"TIDEMARK_HEADER_PREFIX":        "tidemark-",
		"TIDEMARK_START":                Start{},
		"TIDEMARK_ON_RESET":             ResetFails,
		"TIDEMARK_ON_DATA_LOSS":         LossFails,
		"TIDEMARK_LOG_LEVEL":            LogInfo,
		"TIDEMARK_LOG_FORMAT":           LogAuto,
		"TIDEMARK_ADMIN":                AdminAddress(":9840"),
		"TIDEMARK_TLS":                  false,
		"TIDEMARK_SASL_MECHANISM":       NoSASL,
	} {
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s = %#v, want %#v", key, got[key], want)
		}
	}
	if s := c.EventTime.String(); s != "header:event-time:unix-ms,timestamp" {
		t.Errorf("event time = %s", s)
	}
}

// TestMaxFutureFollowsTheBound: where nobody says how far ahead a record may be, half of the
// time that records are held says so, and no bound is refused for it.
func TestMaxFutureFollowsTheBound(t *testing.T) {
	for vars, want := range map[string]struct {
		d    time.Duration
		note string
	}{
		"":                            {2500 * time.Millisecond, "default: half of TIDEMARK_MAX_OUT_OF_ORDERNESS"},
		"MAX_FUTURE=":                 {2500 * time.Millisecond, "default: half of TIDEMARK_MAX_OUT_OF_ORDERNESS"},
		"MAX_OUT_OF_ORDERNESS=1h":     {30 * time.Minute, "default: half of TIDEMARK_MAX_OUT_OF_ORDERNESS"},
		"MAX_OUT_OF_ORDERNESS=10000h": {5000 * time.Hour, "default: half of TIDEMARK_MAX_OUT_OF_ORDERNESS"},
		"MAX_OUT_OF_ORDERNESS=100ms":  {time.Second, "default: the least, as half of TIDEMARK_MAX_OUT_OF_ORDERNESS is less"},
		"MAX_OUT_OF_ORDERNESS=0":      {time.Second, "default: the least, as half of TIDEMARK_MAX_OUT_OF_ORDERNESS is less"},
		"WATERMARK=adaptive MAX_OUT_OF_ORDERNESS=1176h":                  {588 * time.Hour, "default: half of TIDEMARK_MAX_OUT_OF_ORDERNESS"},
		"WATERMARK=window-min":                                           {3 * time.Second, "default: half of TIDEMARK_WATERMARK_WINDOW + TIDEMARK_WATERMARK_LATENESS"},
		"WATERMARK=window-min WATERMARK_WINDOW=20m WATERMARK_LATENESS=0": {10 * time.Minute, "default: half of TIDEMARK_WATERMARK_WINDOW + TIDEMARK_WATERMARK_LATENESS"},
		"WATERMARK=punctuated":                                           {5 * time.Minute, "default: only markers move the watermark"},
		"MAX_FUTURE=5m":                                                  {5 * time.Minute, ""},
		"MAX_FUTURE=0":                                                   {0, ""},
	} {
		c := mustLoad(t, strings.Fields(vars)...)
		for _, s := range c.Effective() {
			if s.Key == "TIDEMARK_MAX_FUTURE" && (c.MaxFuture != want.d || s.Value != show(want.d) || s.Note != want.note || s.Default != (want.note != "")) {
				t.Errorf("%q: %v, shown as %+v", vars, c.MaxFuture, s)
			}
		}
	}
}

func TestDerivedNames(t *testing.T) {
	c := mustLoad(t, "GROUP=a/b", "INSTANCE=c", "LATE_SUFFIX=-late")
	got := []string{c.OrderedTopic("orders"), c.LateTopic("orders"), c.TransactionalID()}
	if want := []string{"orders.ordered", "orders-late", "a/b/c"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The transactional id says which group and which instance it is of: another group
// whose name only begins the same is a stranger, who must not be fenced.
func TestTransactionalIDsAreTakenApart(t *testing.T) {
	for _, c := range []struct{ group, instance string }{{"a", "c"}, {"a/b", "c"}, {"a/", "c"}, {"/", "c"}, {"", "c.d-e_f"}} {
		id := Config{Group: c.group, Instance: c.instance}.TransactionalID()
		group, instance, ok := SplitTransactionalID(id)
		if group != c.group || instance != c.instance || !ok {
			t.Errorf("%q: group %q, instance %q, %v; want %q", id, group, instance, ok, c)
		}
	}
	for _, id := range []string{"", "a", "a/", "a/b c", "a/.", "/", "a/" + strings.Repeat("i", 250)} {
		if group, instance, ok := SplitTransactionalID(id); ok {
			t.Errorf("%q was made of %q and %q", id, group, instance)
		}
	}
	if _, err := load("INSTANCE=b/c"); err == nil || !strings.Contains(err.Error(), `"b/c" has characters other than`) {
		t.Errorf("an instance with a slash: %v", err)
	}
}

func TestValues(t *testing.T) {
	c := mustLoad(t,
		"BROKERS=a:1, b , [::1]:9092", "TOPICS=x, y", "DELIVERY=At-Least-Once", "HEADERS=event-time,event-time", "MEMORY=1GB",
		"START=2023-11-14T22:13:20.5Z", "ON_RESET=new-epoch", "ON_DATA_LOSS=continue", "LOG_LEVEL=DEBUG", "GROUP=",
		"IDLE_TIMEOUT=0", "MAX_FUTURE=0", "MAX_OUT_OF_ORDERNESS=0", "WINDOWS=tumbling:1m , hopping:5m/1m",
	)
	if c.Windows.String() != "tumbling:1m,hopping:5m/1m" || c.Windows.Most() != 6 {
		t.Errorf("windows = %s", c.Windows)
	}
	if !slices.Equal(c.Brokers, []string{"a:1", "b", "[::1]:9092"}) || !slices.Equal(c.Topics, []string{"x", "y"}) {
		t.Errorf("lists: %q, %q", c.Brokers, c.Topics)
	}
	if c.Delivery != AtLeastOnce || c.Headers != (HeaderSet{EventTime: true}) || c.Memory != 1e9 || c.LogLevel != LogDebug {
		t.Errorf("%+v", c)
	}
	if c.Start != (Start{Kind: StartTime, Time: 1700000000500 * watermark.Time(time.Millisecond)}) {
		t.Errorf("start = %+v", c.Start)
	}
	if c.OnReset != ResetBeginsEpoch || c.OnDataLoss != LossContinues || c.IdleTimeout != 0 || c.Group != "tidemark" {
		t.Errorf("%+v", c)
	}
}

// Every fault is one row: what is set, and the lines that must come of it.
func TestFaults(t *testing.T) {
	long := strings.Repeat("t", 242) // with .ordered it is 250
	tests := []struct{ vars, want string }{
		{"TOPICS=", "TIDEMARK_TOPICS: not set\nhint: the topics to bring in order, like TIDEMARK_TOPICS=orders,payments"},
		{"TOPICS=a,", `TIDEMARK_TOPICS: an entry of "a," is empty` + "\nhint: separate entries by one comma each, with none at the end"},
		{"TOPICS=a b", `TIDEMARK_TOPICS: "a b" has characters other than a-z A-Z 0-9 . _ -` + "\nhint: separate entries by commas"},
		{"ADMIN=9840", `TIDEMARK_ADMIN: "9840" is not host:port` + "\nhint: like :9840 for all addresses, 127.0.0.1:9840 for this machine alone, or off"},
		{"ADMIN=:0", `TIDEMARK_ADMIN: ":0" is not host:port` + "\nhint: like :9840 for all addresses, 127.0.0.1:9840 for this machine alone, or off"},
		{"ADMIN=off ADMIN_USERNAME=u", "TIDEMARK_ADMIN_USERNAME: has no effect without the admin port\nhint: set TIDEMARK_ADMIN"},
		{"ADMIN_USERNAME=u", "TIDEMARK_ADMIN_PASSWORD: not set, but TIDEMARK_ADMIN_USERNAME is\nhint: set it, or TIDEMARK_ADMIN_PASSWORD_FILE"},
		{"ADMIN_PASSWORD=p", "TIDEMARK_ADMIN_USERNAME: not set, but TIDEMARK_ADMIN_PASSWORD is"},
		{"ADMIN_TLS_CERT_FILE=cert.pem", "TIDEMARK_ADMIN_TLS_KEY_FILE: not set, but TIDEMARK_ADMIN_TLS_CERT_FILE is\nhint: a certificate needs its key"},
		{"ADMIN_TLS_CERT_FILE=nowhere ADMIN_TLS_KEY_FILE=nowhere", "TIDEMARK_ADMIN_TLS_CERT_FILE: certificate nowhere with key nowhere: open nowhere: no such file or directory"},
		{"TOPICS=..", `TIDEMARK_TOPICS: ".." is not allowed as a name`},
		{"TOPICS=" + long, `TIDEMARK_TOPICS: the output "` + long + `.ordered" is longer than 249 characters`},
		{"TOPICS=a,b,a", "TIDEMARK_TOPICS: a is listed twice"},
		{"TOPICS=a.b,a_b", "TIDEMARK_TOPICS: a.b and a_b cannot both exist: Kafka takes . and _ for the same"},
		{"TOPICS=a,a.ordered", "TIDEMARK_TOPICS: a.ordered is a source and the ordered output of a\nhint: drop one of the two, or change TIDEMARK_ORDERED_SUFFIX"},
		{"TOPICS=a_late,a", "TIDEMARK_TOPICS: a.late is a source and the late output of a\nhint: drop one of the two, or change TIDEMARK_LATE_SUFFIX"},
		{"TOPICS=a,a.x ORDERED_SUFFIX=.x.y LATE_SUFFIX=.y", "TIDEMARK_TOPICS: a.x.y is the ordered output of a and the late output of a.x\nhint: drop one of the two, or change TIDEMARK_LATE_SUFFIX"},
		{"ORDERED_SUFFIX=_late", `TIDEMARK_LATE_SUFFIX: ".late" gives the same topics as TIDEMARK_ORDERED_SUFFIX="_late"` + "\nhint: Kafka takes . and _ for the same"},
		{"LATE_SUFFIX=/late", `TIDEMARK_LATE_SUFFIX: "/late" has characters other than a-z A-Z 0-9 . _ -`},
		{"BROKERS=a:1,kafka://u:hunter2@b:2", "TIDEMARK_BROKERS: a broker is written as a URL\nhint: host:port alone; TLS and login have settings of their own"},
		{"BROKERS=a:x,a:0,:1", "TIDEMARK_BROKERS: \"a:x\" is not host:port\nhint: like kafka-1:9092\nTIDEMARK_BROKERS: \"a:0\" is not host:port\nhint: like kafka-1:9092\nTIDEMARK_BROKERS: \":1\" is not host:port\nhint: like kafka-1:9092"},
		{"GROUP=a\tb", `TIDEMARK_GROUP: "a\tb" has control characters in it`},
		{"INSTANCE=a/b", `TIDEMARK_INSTANCE: "a/b" has characters other than a-z A-Z 0-9 . _ -` + "\nhint: it becomes the static member id, and GROUP/INSTANCE the transactional id"},
		{"WATERMARK=guess", `TIDEMARK_WATERMARK: "guess" is not known` + "\nhint: known: bounded, window-min, punctuated, adaptive"},
		{"WATERMARK=window-min MAX_OUT_OF_ORDERNESS=1s", "TIDEMARK_MAX_OUT_OF_ORDERNESS: has no effect with TIDEMARK_WATERMARK=window-min\nhint: it is for bounded and adaptive"},
		{"TARGET_LATE=0.01 WATERMARK_HEADER=w WATERMARK_WINDOW=1s MIN_OUT_OF_ORDERNESS=0", "TIDEMARK_TARGET_LATE: has no effect with TIDEMARK_WATERMARK=bounded\nhint: it is for adaptive\nTIDEMARK_WATERMARK_WINDOW: has no effect with TIDEMARK_WATERMARK=bounded\nhint: it is for window-min\nTIDEMARK_WATERMARK_HEADER: has no effect with TIDEMARK_WATERMARK=bounded\nhint: it is for punctuated"},
		{"WATERMARK=adaptive TARGET_LATE=1%", `TIDEMARK_TARGET_LATE: "1%" is not a number from 0.000001 to 0.5` + "\nhint: 0.0001 is one in ten thousand"},
		{"WATERMARK=adaptive TARGET_LATE=0.6", `TIDEMARK_TARGET_LATE: "0.6" is not a number from 0.000001 to 0.5` + "\nhint: 0.0001 is one in ten thousand"},
		{"LATE_LIMIT=5%", `TIDEMARK_LATE_LIMIT: "5%" is not a number from 0 to 1` + "\nhint: 0.05 is one in twenty; 0 turns it off"},
		{"LATE_LIMIT=5", `TIDEMARK_LATE_LIMIT: "5" is not a number from 0 to 1` + "\nhint: 0.05 is one in twenty; 0 turns it off"},
		{"LATE_LIMIT=-0.1", `TIDEMARK_LATE_LIMIT: "-0.1" is not a number from 0 to 1` + "\nhint: 0.05 is one in twenty; 0 turns it off"},
		{"WATERMARK=adaptive TARGET_LATE=NaN", `TIDEMARK_TARGET_LATE: "NaN" is not a number from 0.000001 to 0.5` + "\nhint: 0.0001 is one in ten thousand"},
		{"WATERMARK=adaptive MIN_OUT_OF_ORDERNESS=6s", "TIDEMARK_MIN_OUT_OF_ORDERNESS: 6s is more than TIDEMARK_MAX_OUT_OF_ORDERNESS=5s"},
		{"WATERMARK=adaptive MAX_OUT_OF_ORDERNESS=1200h MAX_FUTURE=0", "TIDEMARK_MAX_OUT_OF_ORDERNESS: 1200h is more than the 49 days that can be learned"},
		{"WATERMARK=window-min WATERMARK_WINDOW=-1s", "TIDEMARK_WATERMARK_WINDOW: -1s is negative"},
		{"WATERMARK=window-min WATERMARK_WINDOW=20m MAX_FUTURE=5m", "TIDEMARK_MAX_FUTURE: 5m is less than a quarter of TIDEMARK_WATERMARK_WINDOW + TIDEMARK_WATERMARK_LATENESS=20m1s\nhint: raise it, or turn it off with 0"},
		{"WATERMARK=punctuated WATERMARK_HEADER=w:unix-mss", `TIDEMARK_WATERMARK_HEADER: w:unix-mss: "unix-mss" is not a format; unix-ms is (a header that is really called "w:unix-mss" needs its format written out: w:unix-mss:unix-ms)`},
		{"EVENT_TIME=json:a..b,header:,timestamp", "TIDEMARK_EVENT_TIME: json:a..b: a name in the path is empty\nTIDEMARK_EVENT_TIME: header:: the name of the header is missing"},
		{"MAX_FUTURE=1m MAX_OUT_OF_ORDERNESS=4m1s", "TIDEMARK_MAX_FUTURE: 1m is less than a quarter of TIDEMARK_MAX_OUT_OF_ORDERNESS=4m1s\nhint: raise it, or turn it off with 0"},
		{"DELIVERY=once", `TIDEMARK_DELIVERY: "once" is not known` + "\nhint: known: exactly-once, at-least-once"},
		{"MAX_OUT_OF_ORDERNESS=5", `TIDEMARK_MAX_OUT_OF_ORDERNESS: "5" is not a duration` + "\nhint: a number with its unit (ms, s, m or h), like 5s, 100ms or 1m30s; at most 292 years"},
		{"MAX_OUT_OF_ORDERNESS=-1s", "TIDEMARK_MAX_OUT_OF_ORDERNESS: -1s is negative"},
		{"IDLE_TIMEOUT=-1s", "TIDEMARK_IDLE_TIMEOUT: -1s is negative"},
		{"MAX_FUTURE=-1s", "TIDEMARK_MAX_FUTURE: -1s is negative"},
		{"MAX_DRIFT=-1s", "TIDEMARK_MAX_DRIFT: -1s is negative"},
		{"MAX_DRIFT=1m IDLE_TIMEOUT=0", "TIDEMARK_MAX_DRIFT: 1m, but TIDEMARK_IDLE_TIMEOUT=0: one silent partition would block all others for ever\nhint: set an idle timeout, or turn alignment off with 0"},
		{"MAX_DRIFT=1m IDLE_TIMEOUT=x", "TIDEMARK_IDLE_TIMEOUT: \"x\" is not a duration\nhint: a number with its unit (ms, s, m or h), like 5s, 100ms or 1m30s; at most 292 years"},
		{"REANCHOR_AFTER=-1", "TIDEMARK_REANCHOR_AFTER: -1 is negative\nhint: 0 turns it off"},
		{"REANCHOR_AFTER=1.5", `TIDEMARK_REANCHOR_AFTER: "1.5" is not a whole number` + "\nhint: digits alone, like 100000"},
		{"WATERMARK=punctuated MAX_FUTURE=0 CLOCK_HEADER=device-id", "TIDEMARK_CLOCK_HEADER: has no effect with TIDEMARK_WATERMARK=punctuated and TIDEMARK_MAX_FUTURE=0: nothing says how far a clock may be off\nhint: set TIDEMARK_MAX_FUTURE"},
		{"DEDUP=id", `TIDEMARK_DEDUP: "id" is not known` + "\nhint: known: off, header:NAME, key, bytes"},
		{"DEDUP=header:", "TIDEMARK_DEDUP: the name of the header is missing\nhint: like header:event-id"},
		{"DEDUP=key DUPLICATES=forget", `TIDEMARK_DUPLICATES: "forget" is not known` + "\nhint: known: late, drop"},
		{"DUPLICATES=drop", "TIDEMARK_DUPLICATES: has no effect without TIDEMARK_DEDUP\nhint: say by what duplicates are known, like TIDEMARK_DEDUP=header:event-id"},
		{"DUPLICATES=drop DEDUP=id", `TIDEMARK_DEDUP: "id" is not known` + "\nhint: known: off, header:NAME, key, bytes"},
		{"DEDUP_REMEMBER=-1", "TIDEMARK_DEDUP_REMEMBER: -1 is negative\nhint: 0 remembers none"},
		{"COMMIT_INTERVAL=0s", "TIDEMARK_COMMIT_INTERVAL: 0s is not above 0"},
		{"COMMIT_INTERVAL=5s", "TIDEMARK_COMMIT_INTERVAL: 5s is not less than half of TIDEMARK_TRANSACTION_TIMEOUT=10s"},
		{"COMMIT_INTERVAL=5s TRANSACTION_TIMEOUT=x", `TIDEMARK_TRANSACTION_TIMEOUT: "x" is not a duration` + "\nhint: a number with its unit (ms, s, m or h), like 5s, 100ms or 1m30s; at most 292 years"},
		{"SESSION_TIMEOUT=5s", "TIDEMARK_SESSION_TIMEOUT: 5s is not from 6s to 30m\nhint: brokers refuse anything else"},
		{"TRANSACTION_TIMEOUT=16m", "TIDEMARK_TRANSACTION_TIMEOUT: 16m is not from 1s to 15m\nhint: brokers refuse more than 15m"},
		{"HEADERS=watermark,offset", `TIDEMARK_HEADERS: "offset" is not known` + "\nhint: known: watermark, source-offset, event-time"},
		{"WINDOWS=tumbling:1m,session:5m,hopping:1h/1ms", `TIDEMARK_WINDOWS: "session:5m": unknown kind of windows` + "\nhint: known: tumbling:SIZE[+OFFSET][@ZONE], hopping:SIZE/SLIDE[+OFFSET][@ZONE], sliding:SIZE\n" +
			`TIDEMARK_WINDOWS: "hopping:1h/1ms": every record would be in 3600000 windows, each written into its headers; the maximum is 64` + "\nhint: make them begin less often, or combine shorter ones in the consumer"},
		{"HEADER_PREFIX=ä", `TIDEMARK_HEADER_PREFIX: "ä" is not 1 to 100 of the characters a-z A-Z 0-9 . _ - : /`},
		{"START=2026-12-01", `TIDEMARK_START: "2026-12-01" has no time of day` + "\nhint: for midnight in UTC: 2026-12-01T00:00:00Z"},
		{"START=yesterday", `TIDEMARK_START: "yesterday" is no place to start` + "\nhint: known: earliest, latest, a time (like 2006-01-02T15:04:05Z, or ms since 1970), group:NAME"},
		{"START=-1", `TIDEMARK_START: "-1" is outside the years 1970 to 2262` + "\nhint: numbers are milliseconds"},
		{"START=1700000000123456", `TIDEMARK_START: "1700000000123456" looks like microseconds, but numbers are milliseconds since 1970` + "\nhint: for 2023-11-14T22:13:20.123Z write that, or 1700000000123"},
		{"START=1796062000", `TIDEMARK_START: "1796062000" looks like seconds, but numbers are milliseconds since 1970` + "\nhint: for 2026-11-30T18:06:40Z write that, or 1796062000000"},
		{"START=1796062000.25", `TIDEMARK_START: "1796062000.25" looks like seconds, but numbers are milliseconds since 1970` + "\nhint: for 2026-11-30T18:06:40.25Z write that, or 1796062000250"},
		{"START=1700000000123456789", `TIDEMARK_START: "1700000000123456789" looks like nanoseconds, but numbers are milliseconds since 1970` + "\nhint: for 2023-11-14T22:13:20.123Z write that, or 1700000000123"},
		{"START=99999999999999999999999", `TIDEMARK_START: "99999999999999999999999" is outside the years 1970 to 2262` + "\nhint: numbers are milliseconds"},
		{"START=1700000000123.5", `TIDEMARK_START: "1700000000123.5" is not a whole number of milliseconds`},
		{"START=2023-11-14T22:13:20", `TIDEMARK_START: "2023-11-14T22:13:20" does not say of which time zone it is` + "\nhint: write it behind the time: Z for UTC, or an offset like +01:00"},
		{"START=2023-11-14T22:13:20+24:00", `TIDEMARK_START: "2023-11-14T22:13:20+24:00" has an impossible offset from UTC` + "\nhint: like 2006-01-02T15:04:05Z"},
		{"START=1969-11-14T22:13:20Z", `TIDEMARK_START: "1969-11-14T22:13:20Z" is outside the years 1970 to 2262`},
		{"BROKERS=a:1;b:2", `TIDEMARK_BROKERS: "a:1;b:2" is not host:port` + "\nhint: separate entries by commas"},
		{"HEADERS=none,watermark", `TIDEMARK_HEADERS: "none" goes with no other` + "\nhint: leave it out, or the others"},
		{"REANCHOR_AFTER=99999999999999999999", `TIDEMARK_REANCHOR_AFTER: "99999999999999999999" is too large` + "\nhint: digits alone, like 100000"},
		{"TLS=yes", `TIDEMARK_TLS: "yes" is neither true nor false`},
		{"MEMORY=1MB", "TIDEMARK_MEMORY: 1000000B is less than 1MiB\nhint: MB is 10^6 bytes, MiB is 2^20: write 1MiB, or more"},
		{`MAX_OUT_OF_ORDERNESS="5s"`, "TIDEMARK_MAX_OUT_OF_ORDERNESS: the value is in quotes\nhint: leave them out: docker run --env-file and kubectl --from-env-file take them for a part of the value"},
		{`GROUP='payments'`, "TIDEMARK_GROUP: the value is in quotes\nhint: leave them out: docker run --env-file and kubectl --from-env-file take them for a part of the value"},
		{`TOPICS="orders"`, "TIDEMARK_TOPICS: the value is in quotes\nhint: leave them out: docker run --env-file and kubectl --from-env-file take them for a part of the value"},
		{"START=group:", "TIDEMARK_START: the name of the group is missing\nhint: like group:payments"},
		{"START=group:tidemark", `TIDEMARK_START: "tidemark" is the group that has no offset to start from` + "\nhint: name another group, or earliest"},
		{"ON_RESET=continue", `TIDEMARK_ON_RESET: "continue" is not known` + "\nhint: known: fail, new-epoch"},
		{"ON_DATA_LOSS=ignore", `TIDEMARK_ON_DATA_LOSS: "ignore" is not known` + "\nhint: known: fail, continue"},
		{"MEMORY=256", "TIDEMARK_MEMORY: 256B is less than 1MiB\nhint: write the unit, like 256MiB"},
		{"MEMORY=much", `TIDEMARK_MEMORY: "much" is not a number of bytes` + "\nhint: like 256MiB or 1GiB"},
		{"LOG_LEVEL=loud", `TIDEMARK_LOG_LEVEL: "loud" is not known` + "\nhint: known: debug, info, warn, error"},
		{"LOG_FORMAT=xml", `TIDEMARK_LOG_FORMAT: "xml" is not known` + "\nhint: known: auto, text, json"},
		{"TLS=yes", `TIDEMARK_TLS: "yes" is neither true nor false`},
		{"TLS_CA_FILE=/ca TLS_SERVER_NAME=b", "TIDEMARK_TLS_CA_FILE: has no effect without TLS\nhint: set TIDEMARK_TLS=true\nTIDEMARK_TLS_SERVER_NAME: has no effect without TLS\nhint: set TIDEMARK_TLS=true"},
		{"TLS=true TLS_CA_FILE=/nowhere/ca", "TIDEMARK_TLS_CA_FILE: certificate authorities: open /nowhere/ca: no such file or directory"},
		{"TLS=true TLS_CERT_FILE=/c", "TIDEMARK_TLS_KEY_FILE: not set, but TIDEMARK_TLS_CERT_FILE is\nhint: a certificate needs its key"},
		{"TLS=true TLS_KEY_FILE=/k", "TIDEMARK_TLS_CERT_FILE: not set, but TIDEMARK_TLS_KEY_FILE is\nhint: a key needs its certificate"},
		{"TLS=true TLS_CERT_FILE=/nowhere/c TLS_KEY_FILE=/k", "TIDEMARK_TLS_CERT_FILE: client certificate /nowhere/c with key /k: open /nowhere/c: no such file or directory"},
		{"SASL_MECHANISM=GSSAPI", `TIDEMARK_SASL_MECHANISM: "GSSAPI" is not known` + "\nhint: known: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM"},
		{"SASL_USERNAME=u", "TIDEMARK_SASL_MECHANISM: not set, but TIDEMARK_SASL_USERNAME is\nhint: known: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM"},
		{"SASL_MECHANISM=PLAIN", "TIDEMARK_SASL_USERNAME: not set, but TIDEMARK_SASL_MECHANISM is\nTIDEMARK_SASL_PASSWORD: not set, but TIDEMARK_SASL_MECHANISM is\nhint: set it, or TIDEMARK_SASL_PASSWORD_FILE"},
		{"SASL_MECHANISM=PLAIN SASL_USERNAME=u SASL_PASSWORD_FILE=/nowhere/p", "TIDEMARK_SASL_PASSWORD_FILE: open /nowhere/p: no such file or directory"},
		{"SASL_MECHANISM=PLAIN SASL_USERNAME=u SASL_PASSWORD_FILE=/dev/null", "TIDEMARK_SASL_PASSWORD_FILE: /dev/null is empty"},
		{"SASL_MECHANISM=PLAIN SASL_USERNAME=u SASL_PASSWORD=hunter2 SASL_PASSWORD_FILE=/p", "TIDEMARK_SASL_PASSWORD_FILE: set together with TIDEMARK_SASL_PASSWORD\nhint: set one of them"},
		{"SASL_MECHANISM=PLAIN SASL_USERNAME=u SASL_PASSWORD=p SASL_TOKEN_FILE=/t SASL_SCOPES=s", "TIDEMARK_SASL_TOKEN_FILE: has no effect with TIDEMARK_SASL_MECHANISM=PLAIN\nhint: it is for OAUTHBEARER\nTIDEMARK_SASL_SCOPES: has no effect with TIDEMARK_SASL_MECHANISM=PLAIN\nhint: it is for OAUTHBEARER"},
		{"SASL_CLIENT_SECRET=hunter2", "TIDEMARK_SASL_MECHANISM: not set, but TIDEMARK_SASL_CLIENT_SECRET is\nhint: known: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM"},
		{"SASL_MECHANISM=OAUTHBEARER", "TIDEMARK_SASL_TOKEN_FILE: not set, but TIDEMARK_SASL_MECHANISM is\nhint: set it, or TIDEMARK_SASL_TOKEN_URL"},
		{"SASL_MECHANISM=OAUTHBEARER SASL_USERNAME=u SASL_TOKEN_FILE=/nowhere/t", "TIDEMARK_SASL_USERNAME: has no effect with TIDEMARK_SASL_MECHANISM=OAUTHBEARER\nhint: it is for PLAIN, SCRAM-SHA-256, SCRAM-SHA-512\nTIDEMARK_SASL_TOKEN_FILE: open /nowhere/t: no such file or directory"},
		{"SASL_MECHANISM=OAUTHBEARER SASL_TOKEN_FILE=/dev/null SASL_CLIENT_ID=c", "TIDEMARK_SASL_TOKEN_FILE: /dev/null is empty\nTIDEMARK_SASL_CLIENT_ID: has no effect with TIDEMARK_SASL_TOKEN_FILE\nhint: it is for TIDEMARK_SASL_TOKEN_URL"},
		{"SASL_MECHANISM=OAUTHBEARER SASL_TOKEN_FILE=/t SASL_TOKEN_URL=https://i", "TIDEMARK_SASL_TOKEN_URL: set together with TIDEMARK_SASL_TOKEN_FILE\nhint: set one of them"},
		{"SASL_MECHANISM=OAUTHBEARER SASL_TOKEN_URL=https://i/token SASL_TOKEN_CA_FILE=/nowhere/ca", "TIDEMARK_SASL_TOKEN_CA_FILE: certificate authorities: open /nowhere/ca: no such file or directory\nTIDEMARK_SASL_CLIENT_ID: not set, but TIDEMARK_SASL_TOKEN_URL is\nTIDEMARK_SASL_CLIENT_SECRET: not set, but TIDEMARK_SASL_TOKEN_URL is\nhint: set it, or TIDEMARK_SASL_CLIENT_SECRET_FILE"},
		{"SASL_MECHANISM=OAUTHBEARER SASL_TOKEN_URL=http://i/token SASL_CLIENT_ID=c SASL_CLIENT_SECRET=s SASL_EXTENSIONS=a=b,c", "TIDEMARK_SASL_TOKEN_URL: the secret would go there unencrypted\nhint: use https://\nTIDEMARK_SASL_EXTENSIONS: \"c\" is not KEY=VALUE\nhint: like logicalCluster=lkc-123"},
		{"SASL_MECHANISM=OAUTHBEARER SASL_TOKEN_URL=https://c:hunter2@i/token SASL_CLIENT_ID=c SASL_CLIENT_SECRET=s", "TIDEMARK_SASL_TOKEN_URL: a user name or a password is written into a URL\nhint: like https://login.example.com/oauth2/token; id and secret have settings of their own"},
		{"SASL_MECHANISM=AWS_MSK_IAM", "TIDEMARK_SASL_MECHANISM: AWS_MSK_IAM without TLS\nhint: set TIDEMARK_TLS=true\nAWS_ACCESS_KEY_ID: not set, but TIDEMARK_SASL_MECHANISM is\nhint: the credentials are those of AWS's own variables\nAWS_SECRET_ACCESS_KEY: not set, but TIDEMARK_SASL_MECHANISM is\nhint: the credentials are those of AWS's own variables"},
		{"EVENT_TIME=avro:ts", "TIDEMARK_SCHEMA_REGISTRY: not set, but a source of TIDEMARK_EVENT_TIME needs schemas\nhint: like TIDEMARK_SCHEMA_REGISTRY=http://schema-registry:8081"},
		{"SCHEMA_REGISTRY=registry:8081,http://r/?a,ftp://r", `TIDEMARK_SCHEMA_REGISTRY: "registry:8081" is not an http or https URL` + registryHint + `TIDEMARK_SCHEMA_REGISTRY: a query or a fragment is written into a URL` + registryHint + `TIDEMARK_SCHEMA_REGISTRY: "ftp://r" is not an http or https URL` + strings.TrimSuffix(registryHint, "\n")},
		{"SCHEMA_REGISTRY=http://a/apis/registry/v2,http://b/apis/registry/v3", "TIDEMARK_SCHEMA_REGISTRY: the URLs are those of different APIs\nhint: give all of them the same path, like /apis/registry/v2"},
		{"SCHEMA_REGISTRY=http://u:hunter2@r", "TIDEMARK_SCHEMA_REGISTRY: a user name or a password is written into a URL" + strings.TrimSuffix(registryHint, "\n")},
		{"SCHEMA_REGISTRY_USERNAME=u SCHEMA_REGISTRY_PASSWORD=hunter2", "TIDEMARK_SCHEMA_REGISTRY_USERNAME: has no effect without a schema registry\nhint: set TIDEMARK_SCHEMA_REGISTRY\nTIDEMARK_SCHEMA_REGISTRY_PASSWORD: has no effect without a schema registry\nhint: set TIDEMARK_SCHEMA_REGISTRY"},
		{"SCHEMA_REGISTRY=http://r SCHEMA_REGISTRY_USERNAME=u", "TIDEMARK_SCHEMA_REGISTRY_PASSWORD: not set, but TIDEMARK_SCHEMA_REGISTRY_USERNAME is\nhint: set it, or TIDEMARK_SCHEMA_REGISTRY_PASSWORD_FILE"},
		{"SCHEMA_REGISTRY=http://r SCHEMA_REGISTRY_PASSWORD=hunter2", "TIDEMARK_SCHEMA_REGISTRY_USERNAME: not set, but TIDEMARK_SCHEMA_REGISTRY_PASSWORD is"},
		{"SCHEMA_REGISTRY=http://r SCHEMA_REGISTRY_USERNAME=u SCHEMA_REGISTRY_TOKEN=hunter2", "TIDEMARK_SCHEMA_REGISTRY_TOKEN: set together with a user name or a password\nhint: set one of them"},
		{"SCHEMA_REGISTRY=http://r SCHEMA_REGISTRY_TOKEN=hunter2 SCHEMA_REGISTRY_TOKEN_FILE=/t", "TIDEMARK_SCHEMA_REGISTRY_TOKEN_FILE: set together with TIDEMARK_SCHEMA_REGISTRY_TOKEN\nhint: set one of them"},
		{"SCHEMA_REGISTRY=http://r SCHEMA_REGISTRY_PASSWORD_FILE=/nowhere/p", "TIDEMARK_SCHEMA_REGISTRY_PASSWORD_FILE: open /nowhere/p: no such file or directory"},
		{"SCHEMA_REGISTRY=https://r,http://s SCHEMA_REGISTRY_TLS_CA_FILE=/ca", "TIDEMARK_SCHEMA_REGISTRY_TLS_CA_FILE: has no effect without TLS\nhint: use https:// in TIDEMARK_SCHEMA_REGISTRY"},
		{"SCHEMA_REGISTRY=https://r SCHEMA_REGISTRY_TLS_CA_FILE=/nowhere/ca SCHEMA_REGISTRY_TLS_CERT_FILE=/c", "TIDEMARK_SCHEMA_REGISTRY_TLS_CA_FILE: certificate authorities: open /nowhere/ca: no such file or directory\nTIDEMARK_SCHEMA_REGISTRY_TLS_KEY_FILE: not set, but TIDEMARK_SCHEMA_REGISTRY_TLS_CERT_FILE is\nhint: a certificate needs its key"},
		{"GRUOP=x", "TIDEMARK_GRUOP: there is no such setting\nhint: did you mean TIDEMARK_GROUP?"},
		{"SASL_PASSWROD=hunter2", "TIDEMARK_SASL_PASSWROD: there is no such setting\nhint: did you mean TIDEMARK_SASL_PASSWORD?"},
		{"TEST_BROKERS=x", "TIDEMARK_TEST_BROKERS: there is no such setting\nhint: `tidemark config --docs` lists the settings there are"},
		{"METRICS_SERVICE_HOST=1.2.3.4", "TIDEMARK_METRICS_SERVICE_HOST: there is no such setting\nhint: if Kubernetes sets it for a Service, set enableServiceLinks: false in the pod's spec"},
		{"SERVICE_HOSTS=x", "TIDEMARK_SERVICE_HOSTS: there is no such setting\nhint: `tidemark config --docs` lists the settings there are"},
	}
	for _, tt := range tests {
		_, err := load(splitVars(tt.vars)...)
		if err == nil {
			t.Errorf("%s: accepted, want\n%s", tt.vars, tt.want)
		} else if err.Error() != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.vars, err, tt.want)
		}
	}
}

const registryHint = "\nhint: like http://schema-registry:8081; user name and password have settings of their own\n"

// splitVars splits at the spaces before the next KEY=, for values may have some.
func splitVars(vars string) []string {
	var list []string
	for _, word := range strings.Split(vars, " ") {
		if len(list) > 0 && !strings.Contains(word, "=") {
			list[len(list)-1] += " " + word
			continue
		}
		list = append(list, word)
	}
	return list
}

func TestAllFaultsAtOnceInTheOrderOfTheReference(t *testing.T) {
	_, err := load("LATE_SUFIX=x", "TLS=maybe", "TOPICS=", "MAX_FUTURE=-5m", "DELIVERY=never", "AAA=1")
	var faults *Error
	if !errors.As(err, &faults) {
		t.Fatalf("%v is no *Error", err)
	}
	var keys []string
	for _, f := range faults.Faults {
		keys = append(keys, strings.TrimPrefix(f.Key, Prefix))
	}
	if want := []string{"TOPICS", "MAX_FUTURE", "DELIVERY", "TLS", "AAA", "LATE_SUFIX"}; !slices.Equal(keys, want) {
		t.Errorf("faults of %v, want %v", keys, want)
	}
	if faults.ExitCode() != 2 {
		t.Errorf("exit code %d", faults.ExitCode())
	}
}

func TestEmptyAndServiceLinksAreNoFaults(t *testing.T) {
	mustLoad(t, "GRUOP=", "PORT=tcp://10.0.0.1:9840", "PORT_9840_TCP=x", "PORT_9840_TCP_ADDR=x", "SERVICE_HOST=x", "SERVICE_PORT=x", "SERVICE_PORT_ADMIN=x")
}

func TestPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	for content, want := range map[string]string{"hunter2": "hunter2", "hunter2\n": "hunter2", "hunter2\r\n": "hunter2", " a\nb ": " a\nb "} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c := mustLoad(t, "SASL_MECHANISM=plain", "SASL_USERNAME=u", "SASL_PASSWORD_FILE="+file)
		if got := c.SASLPassword.Reveal(); got != want {
			t.Errorf("%q read as %q", content, got)
		}
		if c.SASLMechanism != Plain {
			t.Errorf("mechanism %q", c.SASLMechanism)
		}
	}
}

func TestNothingIsTakenFromTheProcess(t *testing.T) {
	t.Setenv("TIDEMARK_GROUP", "of-the-process")
	if c := mustLoad(t); c.Group != "tidemark" {
		t.Errorf("group %s", c.Group)
	}
}

func TestRegistryOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, "EVENT_TIME=avro:ts", "SCHEMA_REGISTRY=https://a/contexts/x, https://b", "SCHEMA_REGISTRY_TOKEN_FILE="+file, "SCHEMA_REGISTRY_TLS_SERVER_NAME=r")
	if c.SchemaRegistryToken.Reveal() != "hunter2" {
		t.Errorf("token %q", c.SchemaRegistryToken.Reveal())
	}
	o, err := c.RegistryOptions(func(err error) { t.Error(err) })
	if err != nil || len(o.Auth) != 1 || o.DialTLS == nil || o.ProxiedTLS == nil || !slices.Equal(o.URLs, []string{"https://a/contexts/x", "https://b"}) {
		t.Errorf("%+v, %v", o, err)
	}
	value := &kgo.Record{Value: []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x07x")}
	for url, want := range map[string]string{"http://a": "0", "http://a/apis/registry/v2,http://b/apis/registry/v2": "globalId 7", "http://a/apis/registry/v3": "contentId 7"} {
		if id, _ := mustLoad(t, "EVENT_TIME=avro:ts", "SCHEMA_REGISTRY="+url).EventTime.SchemaOf(value); id.String() != want {
			t.Errorf("%s: the schema is %s", url, id)
		}
	}
	c = mustLoad(t, "SCHEMA_REGISTRY=http://a", "SCHEMA_REGISTRY_USERNAME=u", "SCHEMA_REGISTRY_PASSWORD=p")
	if o, err := c.RegistryOptions(func(err error) { t.Error(err) }); err != nil || len(o.Auth) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
}

// A token or password for the registry is renewed without a restart.
func TestRegistryLoginIsRenewed(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "secret")
	for vars, want := range map[string][]string{
		"SCHEMA_REGISTRY_TOKEN_FILE=" + file:                               {"Bearer one", "Bearer two"},
		"SCHEMA_REGISTRY_USERNAME=u SCHEMA_REGISTRY_PASSWORD_FILE=" + file: {"Basic dTpvbmU=", "Basic dTp0d28="},
	} {
		got = nil
		write(t, file, []byte("one"))
		o, err := mustLoad(t, append(splitVars(vars), "SCHEMA_REGISTRY="+server.URL)...).RegistryOptions(func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		cl, err := sr.NewClient(append(o.Auth, sr.URLs(server.URL))...)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = cl.SchemaByID(t.Context(), 1) // there is no answer to it
		write(t, file, []byte("two"))
		_, _ = cl.SchemaByID(t.Context(), 2)
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%s: %q", vars, got)
		}
	}
}

// What a sidecar's environment says of its admin port is nothing to a command that
// has none, be it wrong for where that runs.
func TestWithoutAdmin(t *testing.T) {
	environ := []string{
		"TIDEMARK_TOPICS=raw", "TIDEMARK_ADMIN=nowhere", "TIDEMARK_ADMIN_TLS_CERT_FILE=/nowhere/cert",
		"TIDEMARK_ADMIN_TLS_KEY_FILE=/nowhere/key", "TIDEMARK_ADMIN_USERNAME=u", "TIDEMARK_ADMIN_PASSWORD_FILE=/nowhere/password",
	}
	if _, err := Load(environ); err == nil {
		t.Error("files that are not there were not missed")
	}
	if c, err := Load(WithoutAdmin(environ)); err != nil || c.Topics[0] != "raw" {
		t.Errorf("%v, %v", c.Topics, err)
	}
	if _, err := Load(WithoutAdmin(append(environ, "TIDEMARK_ADMIM=off"))); err == nil {
		t.Error("a misspelt variable was taken")
	}
}
