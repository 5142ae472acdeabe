package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"

	"github.com/tidemarkhq/tidemark/proxy/admin/page"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Handler returns what answers at the admin port.
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

// reading lets nothing but reading through: nothing here can be changed, and nobody
// is to try. What is answered is of the moment, and for nobody to frame or to guess at.
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

// access is the login that is asked for, if there is one.
type access struct {
	user     string
	password config.Secret
}

// has reports whether a request is let in.
func (a access) has(r *http.Request) bool {
	if a.user == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	// Neither how much of it is right nor how long it is can be told from the time.
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
