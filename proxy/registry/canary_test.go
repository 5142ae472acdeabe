package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// What answers in a registry's place may echo anything. An error of a registry has a message;
// of everything else no more is told than its length and kind.
func TestNoAnswerIsQuoted(t *testing.T) {
	const canary = "anna@example.org"
	for _, answer := range []struct {
		status   int
		kind     string
		body     string
		contains string
	}{
		{500, "text/html", "<html>" + canary + "</html>", "status 500: text of 29 bytes"},
		{500, "application/json", `{"user":"` + canary + `"}`, "status 500: text of 27 bytes"},
		{502, "text/plain", canary, "status 502: text of 16 bytes"},
		{404, "text/plain", canary, "schema registries do not answer like this"},
		{200, "text/html", "<html>" + canary + "</html>", "unable to decode"},
		{500, "application/json", `{"error_code":50001,"message":"Error in the backend data store"}`, "status 500: Error in the backend data store"},
	} {
		stand := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", answer.kind)
			w.WriteHeader(answer.status)
			_, _ = w.Write([]byte(answer.body))
		}))
		cl, err := sr.NewClient(sr.URLs(stand.URL))
		if err != nil {
			t.Fatal(err)
		}
		_, err = fetch(t.Context(), server{Client: cl}, timestamp.SchemaID{Number: 7})
		if err == nil || strings.Contains(err.Error(), "anna") || !strings.Contains(err.Error(), answer.contains) {
			t.Errorf("%d %s: %v, want %s", answer.status, answer.body, err, answer.contains)
		}
		stand.Close()
	}
}
