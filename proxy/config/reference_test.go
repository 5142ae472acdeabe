package config

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/config.md anew")

const docsFile = "../../docs/config.md"

func TestDocsAreUpToDate(t *testing.T) {
	if *update {
		if err := os.WriteFile(docsFile, []byte(Docs()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != Docs() {
		t.Error("docs/config.md is not what Docs returns: go test ./proxy/config -run Docs -update")
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	c := mustLoad(t)
	for _, s := range c.Effective() {
		if !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("%s: the comment %q is no sentence", s.Key, s.Doc)
		}
	}
	if settings[0].group == "" {
		t.Error("the first setting has no heading")
	}
}

func TestEffective(t *testing.T) {
	c := mustLoad(t, "MAX_FUTURE=1h", "SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD="+canary)
	want := map[string]Setting{
		"TIDEMARK_MAX_FUTURE":      {Value: "1h"},
		"TIDEMARK_GROUP":           {Value: "tidemark", Default: true, Note: "default"},
		"TIDEMARK_SASL_PASSWORD":   {Value: "***"},
		"TIDEMARK_EVENT_TIME":      {Value: "header:event-time:unix-ms,timestamp", Default: true, Note: `default: header "event-time" (ms since 1970, or RFC 3339), else the record's own timestamp`},
		"TIDEMARK_TLS_CA_FILE":     {Default: true, Note: "default"},
		"TIDEMARK_MEMORY":          {Value: "64MiB"},
		"TIDEMARK_COMMIT_INTERVAL": {Value: "100ms", Default: true, Note: "default"},
	}
	for _, got := range c.Effective() {
		if w, ok := want[got.Key]; ok && (got.Value != w.Value || got.Default != w.Default || got.Note != w.Note) {
			t.Errorf("%+v, want %+v", got, w)
		}
		delete(want, got.Key)
	}
	for key := range want {
		t.Errorf("%s is missing", key)
	}
}

// What is printed can be set: every effective value is read back as the same.
func TestEffectiveValuesAreReadBack(t *testing.T) {
	c := mustLoad(t, "START=1700000000123", "MAX_FUTURE=90m", "MEMORY=100MB", "HEADERS=none", "BROKERS=a:1,b:2", "EVENT_TIME=header:a:unix-s",
		"WINDOWS=tumbling:1d+6h@Europe/Berlin,hopping:5m/1m,sliding:30s", "DEDUP=header:a:B")
	var environ []string
	for _, s := range c.Effective() {
		environ = append(environ, s.Key+"="+s.Value)
	}
	again, err := Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range again.Effective() {
		if s.Value != c.Effective()[i].Value {
			t.Errorf("%s=%s became %s", s.Key, c.Effective()[i].Value, s.Value)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 5 * time.Second: "5s", 5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		10 * time.Second: "10s", time.Minute + 10*time.Second: "1m10s", 20 * time.Hour: "20h", time.Hour + time.Second: "1h0m1s",
	} {
		got := shortDuration(d)
		if parsed, err := time.ParseDuration(got); got != want || err != nil || parsed != d {
			t.Errorf("%v is shown as %s, want %s", d, got, want)
		}
	}
}
