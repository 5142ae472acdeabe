package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// leaks reports where a payload has come to.
func leaks(t *testing.T, where, text string) {
	t.Helper()
	for _, word := range []string{"anna", "example.org", "4111111", "hunter"} {
		if at := strings.Index(strings.ToLower(text), word); at >= 0 {
			t.Errorf("%s has %q: ...%s...", where, word, text[max(at-300, 0):min(at+100, len(text))])
		}
	}
}

// payloads stand in keys, values, headers, in fields of Avro and of Protobuf, in what a
// registry answers, and in the metadata of somebody else's commits.
var payloads = []string{"anna@example.org", `"anna@example.org"`, "4111111111111111", "4111111111111111.5", "2025-11-21T04:40:00 anna", "“hunter2”", ""}

// canaryTopic writes records full of payloads, and outputs that somebody else has written.
func canaryTopic(t *testing.T, cl *kgo.Client, topic string) {
	t.Helper()
	var all []*kgo.Record
	put := func(topic, value string, pairs ...string) {
		r := &kgo.Record{Topic: topic, Key: []byte(payloads[0]), Value: []byte(value), Timestamp: time.Now()}
		for i := 0; i < len(pairs); i += 2 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		all = append(all, r)
	}
	text := func(s string) string { return string(binary.AppendVarint(nil, int64(len(s)))) + s }
	field := func(s string) string { return "\x0a" + string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	for _, p := range payloads {
		put(topic, p, "event-time", p)
		put(topic, p)
		put(topic, fmt.Sprintf(`{"ts":%q,"%s":1}`, p, strings.Trim(p, `"`)))
		put(topic, `{"ts":{"x":"`+p)
		at := strings.ReplaceAll(p, "4111111111111111", "x") // a number there is the offset that somebody says it has
		put(topic, `{"ts":["`+payloads[0]+`"]}`, "tidemark-late-reason", p, "tidemark-watermark", p, "tidemark-source-offset", at)
		put(topic, "\x00\x00\x00\x00\x01"+text(p))
		put(topic, "\x00\x00\x00\x00\x02\x00"+field(p))
		put(topic, "\x00\x00\x00\x00\x07"+p)
		put(topic, "\x00\x00\x00\x00\x00"+p, "__value_schema_id", p, "apicurio.value.globalId", p, "apicurio.protobuf.type", p)
		put(topic, "x", "event-time", fmt.Sprint(time.Now().UnixMilli()), "id", p)
	}
	put(topic, `{"ts":4111111111111111}`)
	put(topic, `{"ts":4111111111111}`) // the year 2100
	if err := cl.ProduceSync(t.Context(), all...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// canaryRegistry has schemas, of which one is text of anybody's, and faults that quote what
// they like.
func canaryRegistry(t *testing.T) string {
	t.Helper()
	schemas := map[string]string{
		"1": `{"schema":"{\"type\":\"record\",\"name\":\"P\",\"doc\":\"anna@example.org\",\"fields\":[{\"name\":\"ts\",\"type\":\"string\",\"default\":\"anna@example.org\"}]}"}`,
		"2": `{"schemaType":"PROTOBUF","schema":"syntax = \"proto3\"; /* anna@example.org */ message P { string ts = 1; }"}`,
		"7": `{"schemaType":"AVRO","schema":"anna@example.org"}`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		w.Header().Set("Content-Type", "application/json")
		if text, ok := schemas[id]; ok {
			_, _ = io.WriteString(w, text)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error_code":40403,"message":"no schema for anna@example.org"}`)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestCommandsTellNoPayload: whatever records hold, every command that has seen them, its log,
// its report and the admin port say nothing of it.
func TestCommandsTellNoPayload(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "text", "framed"),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	registry := canaryRegistry(t)
	for topic, sources := range map[string]string{"text": "header:event-time,json:ts,timestamp", "framed": "header:event-time,avro:ts,protobuf:ts"} {
		canaryTopic(t, cl, topic)
		admin := freeAddress(t)
		env := append(os.Environ(),
			"TIDEMARK_BROKERS="+strings.Join(fake.ListenAddrs(), ","), "TIDEMARK_TOPICS="+topic, "TIDEMARK_GROUP=of-"+topic, "TIDEMARK_INSTANCE=a",
			"TIDEMARK_EVENT_TIME="+sources, "TIDEMARK_ADMIN="+admin, "TIDEMARK_SCHEMA_REGISTRY="+registry, "TIDEMARK_START=earliest", "TIDEMARK_DEDUP=header:id",
			"TIDEMARK_MAX_OUT_OF_ORDERNESS=100ms", "TIDEMARK_IDLE_TIMEOUT=200ms", "TIDEMARK_COMMIT_INTERVAL=50ms", "TIDEMARK_LOG_FORMAT=text",
		)
		tell := func(where string, args ...string) string {
			var out bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "tidemark", args...)
			cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
			_ = cmd.Run() // outputs that others wrote to do not hold
			if out.Len() == 0 {
				t.Errorf("%s: nothing", where)
			}
			leaks(t, topic+": "+where, out.String())
			return out.String()
		}
		var log bytes.Buffer
		run := exec.CommandContext(t.Context(), "tidemark", "run")
		run.Env, run.Stdout, run.Stderr = env, &log, &log
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		awaitAllRead(t, admin)
		for _, path := range []string{"/status", "/metrics", "/", "/readyz"} {
			leaks(t, topic+": "+path, ask(t, admin, path))
		}
		if page := ask(t, admin, "/"); !strings.Contains(page, "no usable event time") {
			t.Error("the page does not say what was wrong with the last record")
		}
		_ = run.Process.Signal(os.Interrupt)
		_ = run.Wait()
		leaks(t, topic+": the log", log.String())
		if !strings.Contains(log.String(), "no usable event time") {
			t.Errorf("the log says nothing of event times:\n%s", &log)
		}
		for _, out := range []string{topic + ".ordered", topic + ".late"} {
			canaryTopic(t, cl, out)
		}
		for _, command := range []string{
			"verify", "verify --json", "repair --dry-run", "repair --dry-run --json --reasons behind-watermark,invalid-time,future,duplicate", "repair --json",
			"position show", "position rebuild", "position new-epoch --all --from earliest", "config", "config --json", "check",
		} {
			tell(command, strings.Fields(command)...)
		}
		// Somebody else's commit.
		var offsets kadm.Offsets
		offsets.Add(kadm.Offset{Topic: topic, At: 1, LeaderEpoch: -1, Metadata: payloads[0]})
		if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), "of-"+topic, offsets); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"position show", "position rebuild", "verify", "run"} {
			tell(command+" behind another's commit", strings.Fields(command)...)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func ask(t *testing.T, admin, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + admin + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// awaitAllRead waits until a process has read everything, and nothing is held.
func awaitAllRead(t *testing.T, admin string) {
	t.Helper()
	for range 300 {
		var st struct {
			Partitions []struct {
				Backlog         *int64
				Read            int64
				BufferedRecords int64 `json:"buffered_records"`
			}
		}
		if err := json.Unmarshal([]byte(ask(t, admin, "/status")), &st); err == nil && len(st.Partitions) == 1 {
			if p := st.Partitions[0]; p.Backlog != nil && *p.Backlog == 0 && p.Read > 0 && p.BufferedRecords == 0 {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("not all is read")
}
