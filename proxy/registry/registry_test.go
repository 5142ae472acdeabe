package registry

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// The registry of the tests is srfake, which speaks the protocol of Confluent's; it
// is asked without a network, so that time in a bubble can pass. A real one is no
// ordinary dependency of a test: it is a JVM beside a Kafka of its own.

// fake is a registry that can be away.
type fake struct {
	*srfake.Registry
	asked  atomic.Int64
	mishap atomic.Pointer[func(*http.Request) (*http.Response, error)]
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	f.asked.Add(1)
	if fail := f.mishap.Load(); fail != nil {
		return (*fail)(req)
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, req)
	return w.Result(), nil
}

func (f *fake) fails(with func(*http.Request) (*http.Response, error)) { f.mishap.Store(&with) }
func (f *fake) heals()                                                 { f.mishap.Store(nil) }

func answers(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

var errRefused = errors.New("connection refused")

func refused(*http.Request) (*http.Response, error) { return nil, errRefused }

// trouble is what a registry was told of.
type trouble struct {
	n    atomic.Int64
	last atomic.Pointer[error]
}

func inBubble(t *testing.T, spec string, test func(*testing.T, *fake, *Registry, *trouble)) {
	f := &fake{Registry: srfake.New()} // it listens, so it is outside
	defer f.Close()
	synctest.Test(t, func(t *testing.T) {
		e, err := timestamp.Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		told := new(trouble)
		r, err := New(Options{
			URLs: []string{"http://a", "http://b"}, Transport: f, Compile: e.Compile, Unusable: e.Unusable,
			Trouble: func(err error) { told.n.Add(1); told.last.Store(&err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		test(t, f, r, told)
	})
}

// extract reads the event time of a value with a schema, with all the waiting there
// is to it.
func extract(r *Registry, spec string, id int, body ...byte) (int64, error) {
	e, _ := timestamp.Parse(spec)
	value, _ := new(sr.ConfluentHeader).AppendEncode(nil, id, nil)
	return await(r, e, &kgo.Record{Value: append(value, body...)})
}

func await(r *Registry, e *timestamp.Extractor, rec *kgo.Record) (int64, error) {
	e = e.With(r)
	for {
		t, err := e.Extract(rec)
		var pending *timestamp.Pending
		if !errors.As(err, &pending) {
			return int64(t), err
		}
		if err := r.Wait(context.Background(), pending.ID); err != nil {
			return 0, err
		}
	}
}

func numbered(id int) timestamp.SchemaID { return timestamp.SchemaID{Number: uint64(id)} }

const long = `{"type":"record","name":"r","fields":[{"name":"ts","type":"long"}]}`

func TestSchemaIsAskedForOnce(t *testing.T) {
	inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, _ *trouble) {
		id, _, err := f.RegisterSchema("x", sr.Schema{Schema: long})
		if err != nil {
			t.Fatal(err)
		}
		var woken atomic.Int64
		r.Notify(func() { woken.Add(1) })
		for range 3 {
			if got, err := extract(r, "avro:ts", id, 10); err != nil || got != 5e6 {
				t.Fatal(got, err)
			}
		}
		synctest.Wait() // whoever waits is told first
		if f.asked.Load() != 1 || woken.Load() != 1 || !r.Known(numbered(id)) {
			t.Errorf("asked %d times, woken %d times", f.asked.Load(), woken.Load())
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = r.Readers(numbered(id)) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// A schema by its GUID, which newer serializers put into a header.
func TestSchemaByGUID(t *testing.T) {
	inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, told *trouble) {
		id, _, err := f.RegisterSchema("x", sr.Schema{Schema: long})
		if err != nil {
			t.Fatal(err)
		}
		registered, ok := f.GetSchema("x", 1)
		if !ok {
			t.Fatal(id)
		}
		guid, err := hex.DecodeString(strings.ReplaceAll(registered.GUID, "-", ""))
		if err != nil {
			t.Fatal(err)
		}
		read := func(guid []byte) (int64, error) {
			e, _ := timestamp.Parse("avro:ts")
			return await(r, e, &kgo.Record{Value: []byte{10}, Headers: []kgo.RecordHeader{{Key: "__value_schema_id", Value: append([]byte{1}, guid...)}}})
		}
		for range 3 {
			if got, err := read(guid); err != nil || got != 5e6 || f.asked.Load() != 1 {
				t.Error(got, err, f.asked.Load())
			}
		}
		if _, err := read(make([]byte, 16)); !errors.Is(err, timestamp.ErrUnknownSchema) || !strings.Contains(err.Error(), "schema 00000000-0000-0000-0000-000000000000: the schema registry has no such schema") {
			t.Error(err)
		}
		// A registry that is too old for it has no word for a path that it does not know.
		f.fails(answers(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`))
		if _, err := read([]byte("0123456789abcdef")); errors.Is(err, timestamp.ErrInvalid) || !strings.Contains(err.Error(), "it knows no GUIDs of schemas; a newer registry does") {
			t.Error(err)
		}
	})
}

func TestUnknownSchema(t *testing.T) {
	inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, told *trouble) {
		for range 3 {
			if _, err := extract(r, "avro:ts", 7, 10); !errors.Is(err, timestamp.ErrInvalid) || !errors.Is(err, timestamp.ErrUnknownSchema) ||
				!strings.Contains(err.Error(), "schema 7: the schema registry has no such schema: error 40403 (asked again after 30s)") {
				t.Fatal(err)
			}
		}
		if f.asked.Load() != 1 || told.n.Load() != 0 {
			t.Errorf("asked %d times, told %d times", f.asked.Load(), told.n.Load())
		}
		if _, err := extract(r, "avro:ts", 1<<31); errors.Is(err, timestamp.ErrUnknownSchema) || !errors.Is(err, timestamp.ErrInvalid) || f.asked.Load() != 1 {
			t.Errorf("an id that cannot be: %v", err)
		}
		if r.Has(numbered(7)) || f.asked.Load() != 1 {
			t.Error("has what it does not have, or is asked for it again too soon")
		}
		f.SeedSchema("x", 1, 7, sr.Schema{Schema: long})
		if !r.Known(numbered(7)) {
			t.Error("its absence is not known")
		}
		time.Sleep(unknownFor - time.Millisecond)
		if _, err := extract(r, "avro:ts", 7, 10); err == nil {
			t.Error("asked again too soon")
		}
		time.Sleep(2 * time.Millisecond)
		if r.Known(numbered(7)) { // forgotten, but asked for
			t.Error("its absence is still known")
		}
		synctest.Wait()
		if !r.Has(numbered(7)) {
			t.Error("it was not asked for again")
		}
		if got, err := extract(r, "avro:ts", 7, 10); err != nil || got != 5e6 {
			t.Error(got, err)
		}
	})
}

// Whatever is no answer is asked again, and never makes a record invalid.
func TestNoAnswer(t *testing.T) {
	for name, fail := range map[string]func(*http.Request) (*http.Response, error){
		"connection refused":              refused,
		"status 500":                      answers(500, `{"error_code":50001,"message":"Error in the backend data store"}`),
		"status 503":                      answers(503, "<html>\n\tgone fishing</html>"),
		"status 429":                      answers(429, ""),
		"status 401":                      answers(401, `{"error_code":401,"message":"Unauthorized"}`),
		"status 408":                      answers(408, `{"error_code":40801}`),
		"unexpected end of JSON input":    answers(200, `{"schema":"`),
		"check the URL":                   answers(404, "404 page not found"),
		"error_code 404 is not its words": answers(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, told *trouble) {
				f.SeedSchema("x", 1, 1, sr.Schema{Schema: long})
				f.fails(fail)
				began := time.Now()
				_, err := extract(r, "avro:ts", 1, 10)
				if err == nil || errors.Is(err, timestamp.ErrInvalid) || time.Since(began) > 0 {
					t.Fatalf("after %v: %v", time.Since(began), err)
				}
				if strings.HasPrefix(name, "status") && !strings.Contains(err.Error(), name) {
					t.Error(err)
				}
				if strings.ContainsAny(err.Error(), "\n\t") {
					t.Errorf("%q", err)
				}
				// Nobody waits for what is known to be away.
				if _, again := extract(r, "avro:ts", 1, 10); again == nil || time.Since(began) > 0 {
					t.Errorf("after %v: %v", time.Since(began), again)
				}
				time.Sleep(time.Hour)
				if n := told.n.Load(); n < 700 || n > 1500 {
					t.Errorf("told %d times in an hour", n)
				}
				f.heals()
				time.Sleep(longestPause)
				if got, err := extract(r, "avro:ts", 1, 10); err != nil || got != 5e6 {
					t.Error(got, err)
				}
			})
		})
	}
}

// Where one server of a registry fails, the next is asked, and nobody is told.
func TestNextServer(t *testing.T) {
	inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, told *trouble) {
		f.SeedSchema("x", 1, 1, sr.Schema{Schema: long})
		f.fails(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "a" {
				return answers(502, "")(req)
			}
			w := httptest.NewRecorder()
			f.Handler().ServeHTTP(w, req)
			return w.Result(), nil
		})
		if got, err := extract(r, "avro:ts", 1, 10); err != nil || got != 5e6 || told.n.Load() != 0 {
			t.Error(got, err, told.n.Load())
		}
	})
}

// A registry that does not answer at all: whoever waits gives up when it has to.
func TestSilence(t *testing.T) {
	inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, _ *trouble) {
		f.fails(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		_, _ = r.Readers(numbered(1))
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := r.Wait(ctx, numbered(1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 300*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := r.Wait(context.Background(), numbered(1)); err == nil || time.Since(began) > 2*answerTime {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestReferences(t *testing.T) {
	inBubble(t, "avro:m.ts,protobuf:m.ts", func(t *testing.T, f *fake, r *Registry, _ *trouble) {
		must := func(subject string, s sr.Schema) int {
			id, _, err := f.RegisterSchema(subject, s)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		must("base", sr.Schema{Schema: `{"type":"fixed","name":"base.F","size":1}`})
		must("meta", sr.Schema{
			Schema:     `{"type":"record","name":"meta.M","fields":[{"name":"f","type":"base.F"},{"name":"ts","type":"long"}]}`,
			References: []sr.SchemaReference{{Name: "base.F", Subject: "base", Version: 1}},
		})
		id := must("top", sr.Schema{
			Schema: `{"type":"record","name":"T","fields":[{"name":"f","type":"base.F"},{"name":"m","type":"meta.M"}]}`,
			References: []sr.SchemaReference{
				{Name: "meta.M", Subject: "meta", Version: 1},
				{Name: "base.F", Subject: "base", Version: 1},
			},
		})
		if got, err := extract(r, "avro:m.ts,protobuf:m.ts", id, 'x', 'y', 14); err != nil || got != 7e6 {
			t.Error(got, err)
		}
		must("p-base", sr.Schema{Type: sr.TypeProtobuf, Schema: `syntax = "proto3"; message Base { int64 ts = 3; }`})
		id = must("p", sr.Schema{
			Type: sr.TypeProtobuf, Schema: `syntax = "proto3"; import "base.proto"; message T { Base m = 1; }`,
			References: []sr.SchemaReference{{Name: "base.proto", Subject: "p-base", Version: 1}},
		})
		if got, err := extract(r, "avro:m.ts,protobuf:m.ts", id, 0, 1<<3|2, 2, 3<<3, 9); err != nil || got != 9e6 {
			t.Error(got, err)
		}
		f.fails(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "ids") {
				return answers(200, `{"schema":"\"long\"","references":[{"name":"gone","subject":"gone","version":3}]}`)(req)
			}
			return answers(404, `{"error_code":40401,"message":"Subject 'gone' not found."}`)(req)
		})
		if _, err := extract(r, "avro:m.ts,protobuf:m.ts", 77); !errors.Is(err, timestamp.ErrUnknownSchema) || !strings.Contains(err.Error(), "gone (subject gone, version 3): error 40401") {
			t.Error(err)
		}
	})
}

// What a registry says may be anything.
func TestHostileRegistry(t *testing.T) {
	big := strings.Repeat("x", timestamp.MaxSchema)
	deep := func(req *http.Request) (*http.Response, error) {
		return answers(200, fmt.Sprintf(`{"subject":"s","version":1,"id":1,"schema":"\"long\"","references":[{"name":"%p","subject":"s","version":1}]}`, req))(req)
	}
	var wide strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&wide, `{"name":"n%d","subject":"s","version":1},`, i)
	}
	for want, answer := range map[string]func(*http.Request) (*http.Response, error){
		"the schema and its references have more than 1048576 bytes": answers(200, `{"schema":"`+big+`y"}`),
		"answer is too large":                          answers(200, `{"schema":"`+strings.Repeat(big, 5)+`"}`),
		"its references are nested more than 20 times": deep,
		"it has more than 200 references": func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "ids") {
				return answers(200, `{"schema":"\"long\"","references":[`+strings.TrimSuffix(wide.String(), ",")+`]}`)(req)
			}
			return answers(200, `{"subject":"s","version":1,"id":1,"schema":"\"long\""}`)(req)
		},
	} {
		t.Run(want, func(t *testing.T) {
			inBubble(t, "avro:ts", func(t *testing.T, f *fake, r *Registry, _ *trouble) {
				f.fails(answer)
				if _, err := extract(r, "avro:ts", 1, 10); !errors.Is(err, timestamp.ErrInvalid) || !strings.Contains(err.Error(), want) {
					t.Errorf("%.300v", err)
				}
				asked := f.asked.Load()
				if _, _ = extract(r, "avro:ts", 1, 10); f.asked.Load() != asked {
					t.Error("asked again for what will stay as it is")
				}
			})
		})
	}
}

// Over TLS, with a name and a password that show nowhere.
func TestOverTheNetwork(t *testing.T) {
	f := srfake.New(srfake.WithAuth("Basic dTpodW50ZXIy"))
	defer f.Close()
	f.SeedSchema("x", 1, 1, sr.Schema{Schema: long})
	server := httptest.NewTLSServer(f.Handler())
	defer server.Close()
	e, _ := timestamp.Parse("avro:ts")
	for password, want := range map[string]string{"hunter2": "", "wrong": "status 403"} {
		r, err := New(Options{
			URLs: []string{server.URL}, Auth: []sr.ClientOpt{sr.BasicAuth("u", password)},
			DialTLS: (&tls.Dialer{Config: server.Client().Transport.(*http.Transport).TLSClientConfig}).DialContext, Compile: e.Compile, Unusable: e.Unusable, Trouble: func(error) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := extract(r, "avro:ts", 1, 10)
		if (want == "") != (err == nil && got == 5e6) || want != "" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d, %v", password, got, err)
		}
		if strings.Contains(fmt.Sprint(err), password) {
			t.Errorf("%v", err)
		}
		r.Close()
	}
}

// A login is not carried from TLS to where everybody can read it.
func TestRedirectWithoutTLS(t *testing.T) {
	asked := make(chan string, 10)
	plain := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Header.Get("Authorization") }))
	defer plain.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
	}))
	defer server.Close()
	trouble := make(chan error, 10)
	e, _ := timestamp.Parse("avro:ts")
	r, err := New(Options{
		URLs: []string{server.URL}, Auth: []sr.ClientOpt{sr.BasicAuth("u", "hunter2")},
		DialTLS: (&tls.Dialer{Config: server.Client().Transport.(*http.Transport).TLSClientConfig}).DialContext,
		Compile: e.Compile, Unusable: e.Unusable, Trouble: func(err error) { trouble <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, _ = extract(r, "avro:ts", 1, 10)
	if err := <-trouble; !strings.Contains(err.Error(), "redirected from https to http") {
		t.Error(err)
	}
	if len(asked) > 0 {
		t.Errorf("it was asked with %q", <-asked)
	}
}
