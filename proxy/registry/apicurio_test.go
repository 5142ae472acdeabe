package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

func TestKindOf(t *testing.T) {
	for url, want := range map[string]timestamp.RegistryKind{
		"http://r:8081":                         timestamp.Confluent,
		"http://r/apis":                         timestamp.Confluent,
		"https://r/x/apis/registry/v2":          timestamp.ApicurioGlobal,
		"http://r:8080/apis/registry/v2/":       timestamp.ApicurioGlobal,
		"http://r:8080/apis/registry/v3":        timestamp.ApicurioContent,
		"http://r:8080/apis/registry/v4":        timestamp.Confluent,
		"http://r:8080/apis/ccompat/v7":         timestamp.ApicurioCompat,
		"http://r:8080/apis/ccompat/v6/":        timestamp.ApicurioCompat,
		"http://r:8080/apis/registry/v2/groups": timestamp.Confluent,
	} {
		if got := KindOf(url); got != want {
			t.Errorf("%s: %d, want %d", url, got, want)
		}
	}
}

// apicurioFake answers as Apicurio's registry does: paths and errors are those of its
// versions 2.6 and 3.1.
type apicurioFake struct {
	texts map[string]string
	asked atomic.Int64
}

func (f *apicurioFake) RoundTrip(req *http.Request) (*http.Response, error) {
	f.asked.Add(1)
	w := httptest.NewRecorder()
	text, has := f.texts[req.URL.EscapedPath()]
	switch {
	case !strings.Contains(req.URL.Path, "/ccompat/") && req.Header.Get("Accept") != "*/*":
		w.WriteHeader(http.StatusNotAcceptable)
	case has:
		_, _ = w.WriteString(text)
	case strings.HasSuffix(req.URL.Path, "/references") && f.texts[strings.TrimSuffix(req.URL.EscapedPath(), "/references")]+f.texts[strings.TrimSuffix(req.URL.EscapedPath(), "references")+"content"] != "":
		_, _ = w.WriteString("[]")
	case strings.HasPrefix(req.URL.Path, "/elsewhere"):
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.WriteString(`{"message":"RESTEASY003210: Could not find resource","error_code":404,"name":"NotFoundException"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.WriteString(`{"message":"No artifact with ID '8' in group 'null' was found.","error_code":404,"detail":"ArtifactNotFoundException: ...","name":"ArtifactNotFoundException"}`)
	}
	return w.Result(), nil
}

// Ids as Apicurio's serializers write them, by all APIs of its registry.
func TestApicurio(t *testing.T) {
	const (
		avro  = `{"type":"record","name":"T","fields":[{"name":"f","type":"base.F"},{"name":"ts","type":"long"}]}`
		fixed = `{"type":"fixed","name":"base.F","size":1}`
		proto = `syntax = "proto3"; import "a/base.proto"; message Other {} message T { Base b = 1; int64 ts = 2; }`
		base  = `syntax = "proto3"; message Base { int64 ts = 1; }`
		json  = `{"type":"object","properties":{"ts":{"type":"integer"}}}`
	)
	v2 := map[string]string{
		"/apis/registry/v2/ids/globalIds/7":                                      avro,
		"/apis/registry/v2/ids/globalIds/7/references":                           `[{"groupId":null,"artifactId":"base/F","version":"1","name":"base.F"}]`,
		"/apis/registry/v2/groups/default/artifacts/base%2FF/versions/1":         fixed,
		"/apis/registry/v2/ids/globalIds/9":                                      proto,
		"/apis/registry/v2/ids/globalIds/9/references":                           `[{"groupId":"g","artifactId":"base","version":"2","name":"a/base.proto"}]`,
		"/apis/registry/v2/groups/g/artifacts/base/versions/2":                   base,
		"/apis/registry/v2/ids/globalIds/10":                                     json,
		"/apis/registry/v2/ids/contentIds/5":                                     long,
		"/apis/ccompat/v7/schemas/ids/7":                                         fmt.Sprintf(`{"schema":%q}`, long),
		"/apis/registry/v3/ids/contentIds/7":                                     avro,
		"/apis/registry/v3/ids/contentIds/7/references":                          `[{"groupId":"default","artifactId":"base/F","version":"1","name":"base.F"}]`,
		"/apis/registry/v3/groups/default/artifacts/base%2FF/versions/1/content": fixed,
		"/apis/registry/v3/ids/globalIds/5":                                      long,
	}
	eight := func(id uint64, body string) string {
		return "\x00" + string(binary.BigEndian.AppendUint64(nil, id)) + body
	}
	four := func(id uint32, body string) string {
		return "\x00" + string(binary.BigEndian.AppendUint32(nil, id)) + body
	}
	for _, tt := range []struct{ url, name, header, value, want string }{
		{"/apis/registry/v2", "a global id", "", eight(7, "x\x0a"), "5000000"},
		{"/apis/registry/v2", "one of four bytes", "", four(7, "x\x0a"), "5000000"},
		{"/apis/registry/v2", "one in a header", "apicurio.value.globalId:7", "x\x0a", "5000000"},
		{"/apis/registry/v2", "one of a content", "apicurio.value.contentId:5", "\x0a", "5000000"},
		{"/apis/registry/v2", "Protobuf", "", eight(9, "\x03\x0a\x01T\x10\x05"), "5000000"},
		{"/apis/registry/v2", "Protobuf that refers to another", "", eight(9, "\x03\x0a\x01T\x10\x05\x0a\x02\x08\x06"), "5000000"},
		{"/apis/registry/v2", "JSON", "", eight(10, "{}"), "the record has none of avro:ts,protobuf:ts"},
		{"/apis/registry/v2", "one that it does not have", "", eight(8, "x\x0a"), "schema globalId 8: the schema registry has no such schema (asked again after 30s)"},
		{"/apis/registry/v3", "a content's id", "", four(7, "x\x0a"), "5000000"},
		{"/apis/registry/v3", "one of eight bytes", "", eight(7, "x\x0a"), "5000000"},
		{"/apis/registry/v3", "a global one in a header", "apicurio.value.globalId:5", "\x0a", "5000000"},
		{"/apis/ccompat/v7", "Confluent's", "", four(7, "\x0a"), "5000000"},
		{"/apis/ccompat/v7/", "a global id", "", eight(7, "x\x0a"), "5000000"},
		{"/elsewhere/apis/registry/v2", "a wrong path", "", eight(7, "x\x0a"), "check the URL"},
	} {
		t.Run(tt.url+" "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &apicurioFake{texts: v2}
				e, err := timestamp.Parse("avro:ts,protobuf:ts")
				if err != nil {
					t.Fatal(err)
				}
				at := "http://a" + tt.url
				e = e.Asking(KindOf(at))
				r, err := New(Options{URLs: []string{at}, Transport: f, Compile: e.Compile, Unusable: e.Unusable, Trouble: func(error) {}})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				rec := &kgo.Record{Value: []byte(tt.value)}
				if name, id, has := strings.Cut(tt.header, ":"); has {
					rec.Headers = []kgo.RecordHeader{{Key: name, Value: []byte{0, 0, 0, 0, 0, 0, 0, id[0] - '0'}}}
				}
				got, err := await(r, e, rec)
				if says := fmt.Sprint(err); err != nil && !strings.Contains(says, tt.want) || err == nil && fmt.Sprint(got) != tt.want {
					t.Errorf("%d, %v, want %s", got, err, tt.want)
				}
				if strings.HasPrefix(tt.url, "/elsewhere") {
					if errors.Is(err, timestamp.ErrInvalid) {
						t.Error("a wrong path made the record invalid")
					}
					return
				}
				asked := f.asked.Load()
				if _, _ = await(r, e, rec); f.asked.Load() != asked {
					t.Error("asked twice")
				}
			})
		})
	}
	// No extractor makes such an id where the registry is another one.
	r, err := New(Options{URLs: []string{"http://a"}, Transport: &apicurioFake{}, Trouble: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Wait(context.Background(), timestamp.SchemaID{Kind: timestamp.ByGlobalID, Number: 7}); err == nil || !strings.Contains(err.Error(), "not that of Apicurio's API") {
		t.Error(err)
	}
}
