package admin

import (
	"io"
	"net/http"
)

// livez says that the process answers, and checks nothing else: the loop only ever waits for
// brokers, and a restart would not make them answer sooner. Sidecars that are all restarted
// while brokers are down would only have to rejoin the group afterwards.
func livez(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "alive") }

// readyz says whether the partitions of this instance are processed, or with 503 what is
// missing, in words for those who may see the status. A spare instance without partitions is
// ready, and so is one with a backlog.
func readyz(board Board, known access) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		st := board.Status(r.Context())
		switch {
		case st.Ready:
			say(w, http.StatusOK, "ready")
		case known.has(r):
			words := "not ready: " + st.NotReady
			if st.NotReadyHint != "" {
				words += "\nhint: " + st.NotReadyHint
			}
			say(w, http.StatusServiceUnavailable, words)
		default:
			say(w, http.StatusServiceUnavailable, "not ready")
		}
	}
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n")
}
