// Package page shows the status of Tidemark to people: one page of HTML and pictures,
// whole without a script, that asks nothing of anybody but the server it came from. It
// has no payload, no key and no secret to show, for a status has none.
package page

import (
	"compress/gzip"
	"context"
	"embed"
	"net/http"
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/status"
)

// Board shows the status of what is served; see proxy.Board.
type Board interface {
	Status(ctx context.Context) *status.Status
}

//go:embed page.css page.js icon.svg
var assets embed.FS

// policy has the browser load nothing from elsewhere, and run no script and apply no
// style that stands in the page itself. So a name that got past the escaping would be
// text all the same.
const policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns what answers with the page at / and with what belongs to it.
func Handler(board Board) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		st := board.Status(r.Context())
		send(w, r, "text/html; charset=utf-8", Write(st, time.Now(), bodies(r)))
	})
	for name, kind := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		text, err := assets.ReadFile(name)
		if err != nil {
			panic(err) // it is in the binary
		}
		mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) { send(w, r, kind, text) })
	}
	return mux
}

// bodies tells of which partitions all is to be shown: of all of them, unless the
// script asks for those that stand open. The rest it has a row for each.
func bodies(r *http.Request) func(id string) bool {
	q := r.URL.Query()
	if !q.Has("rows") {
		return everything
	}
	open := map[string]bool{}
	for _, id := range q["open"] {
		open[id] = true
	}
	return func(id string) bool { return open[id] }
}

func everything(string) bool { return true }

func send(w http.ResponseWriter, r *http.Request, kind string, text []byte) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(text)
		return
	}
	h.Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
	_, _ = z.Write(text)
	_ = z.Close()
}
