package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"

	"github.com/tidemarkhq/tidemark/proxy/admin/page"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Handler returns the handler of the admin port.
func Handler(cfg config.Config, board Board) http.Handler {
	known := access{cfg.AdminUsername, cfg.AdminPassword}
	open := http.NewServeMux() // for everybody
	open.HandleFunc("/livez", livez)
	open.Handle("/readyz", readyz(board, known))
	closed := http.NewServeMux()
	closed.Handle("/status", statusHandler(board))
	closed.Handle("/metrics", scrape(board))
	closed.Handle("/", page.Handler(board))
	closed.Handle("/debug/pprof/", loopbackOnly(profiles()))
	open.Handle("/", known.only(closed))
	return reading(open)
}

// reading allows GET and HEAD only: nothing here can be changed. Answers must not be cached,
// framed, or have their type guessed.
func reading(next http.Handler) http.Handler {
	limited := http.MaxBytesHandler(next, maxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET is answered here", http.StatusMethodNotAllowed)
			return
		}
		limited.ServeHTTP(w, r)
	})
}

// access is the required login, if there is one.
type access struct {
	user     string
	password config.Secret
}

// has reports whether a request has the login.
func (a access) has(r *http.Request) bool {
	if a.user == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	// Constant time: it reveals neither how much of the login is right nor its length.
	u, p := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(password))
	wantU, wantP := sha256.Sum256([]byte(a.user)), sha256.Sum256([]byte(a.password.Reveal()))
	return subtle.ConstantTimeCompare(u[:], wantU[:])&subtle.ConstantTimeCompare(p[:], wantP[:]) == 1
}

func (a access) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.has(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="tidemark", charset="UTF-8"`)
			http.Error(w, "log in with TIDEMARK_ADMIN_USERNAME and its password", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
