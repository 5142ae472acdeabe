package proxy

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/admin"
	"github.com/tidemarkhq/tidemark/proxy/repair"
)

const payload = "anna@example.org"

// nothingOf reports where a payload has come to.
func nothingOf(t *testing.T, where, text string) {
	t.Helper()
	for _, word := range []string{"anna", "example.org", "4111111"} {
		if at := strings.Index(text, word); at >= 0 {
			t.Errorf("%s has %q: ...%s...", where, word, text[max(at-200, 0):min(at+100, len(text))])
		}
	}
}

// What records hold is in no log, status, metric, page or report, wherever it stands: in keys,
// values, headers, markers, and in headers that imitate ours.
func TestNoPayloadAnywhere(t *testing.T) {
	onKafka(t, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		now := time.Now().UnixMilli()
		headers := func(pairs ...string) (hs []kgo.RecordHeader) {
			for i := 0; i < len(pairs); i += 2 {
				hs = append(hs, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
			}
			return hs
		}
		put := func(topic, value string, pairs ...string) {
			c.produce(c.cl, &kgo.Record{Topic: topic, Key: []byte(payload), Value: []byte(value), Headers: headers(pairs...)})
		}
		env := []string{
			"TIDEMARK_EVENT_TIME=header:event-time,json:ts,timestamp", "TIDEMARK_WATERMARK=punctuated", "TIDEMARK_MAX_OUT_OF_ORDERNESS=",
			"TIDEMARK_WATERMARK_HEADER=mark", "TIDEMARK_DEDUP=header:id", "TIDEMARK_HEADERS=watermark,source-offset,event-time", "TIDEMARK_WINDOWS=tumbling:1m",
		}
		for _, bad := range []string{payload, `"` + payload + `"`, "4111111111111111", "4111111111111111.5", "anna-sec", ""} {
			put(topic, payload, "event-time", bad)
			put(topic, payload, "mark", bad, "event-time", fmt.Sprint(now))
			put(topic, fmt.Sprintf(`{"ts":%q,"email":%q}`, bad, payload))
			put(topic, fmt.Sprintf(`{"ts":{"x":%q}}`, bad))
			put(topic, bad)
		}
		put(topic, `{"ts":4111111111111111}`)
		put(topic, "{}", "mark", "4111111111111", "event-time", fmt.Sprint(now)) // the year 2100
		put(topic, "{}", "mark", fmt.Sprint(now), "event-time", fmt.Sprint(now), "id", payload)
		put(topic, "{}", "event-time", fmt.Sprint(now), "id", payload)
		put(topic, "{}", "event-time", fmt.Sprint(now-5000), "tidemark-late-reason", payload, "tidemark-watermark", payload)

		s := c.start(topic, env...)
		c.awaitRead(s)
		h := admin.Handler(s.cfg, s.proc.publisher)
		for _, path := range []string{"/status", "/metrics", "/", "/readyz"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", path, nil)
			h.ServeHTTP(w, r.WithContext(c.ctx))
			if w.Body.Len() == 0 {
				t.Errorf("%s is empty", path)
			}
			nothingOf(t, path, w.Body.String())
		}
		s.stop()
		nothingOf(t, "the log", s.voice.String())
		if len(s.voice.heard("no usable event time")) == 0 {
			t.Error("nothing was logged of unusable event times")
		}

		// Outputs that somebody else writes to.
		for _, word := range []string{payload, "411111111111111111111", ""} {
			for _, out := range []string{s.cfg.OrderedTopic(topic), s.cfg.LateTopic(topic)} {
				all := []string{
					"event-time", payload, "tidemark-source-topic", word, "tidemark-source-partition", word, "tidemark-late-reason", word, "tidemark-late-at", word,
					"tidemark-watermark", word, "tidemark-event-time", word, "tidemark-window-1m", word, "tidemark-late-by-ms", word, "tidemark-late-schema", word, "tidemark-epoch", word,
				}
				put(out, payload, append(all, "tidemark-source-offset", "0")...)
				put(out, payload, append(all, "tidemark-source-offset", word)...)
				put(out, payload, "tidemark-source-topic", topic, "tidemark-source-partition", "0", "tidemark-source-offset", "1",
					"tidemark-late-reason", "behind-watermark", "tidemark-watermark", fmt.Sprint(now), "tidemark-late-by-ms", word, "tidemark-late-at", word)
			}
		}
		found := c.finds(s.cfg)
		if found.Holds() {
			t.Error("verify found nothing")
		}
		report, err := json.Marshal(found)
		if err != nil {
			t.Fatal(err)
		}
		nothingOf(t, "verify's report", string(report))
		m := c.mend(topic, func(o *repair.Options) { o.DryRun = true }, env...)
		<-m.done
		if m.err != nil {
			nothingOf(t, "repair's error", m.err.Error())
		}
		nothingOf(t, "repair's log", m.voice.String())
		reports, err := json.Marshal(m.reports)
		if err != nil {
			t.Fatal(err)
		}
		nothingOf(t, "repair's report", string(reports))
		if len(m.reports) == 0 {
			t.Error("repair did not report")
		}
	})
}
