package admin

import (
	"io"
	"net/http"
)

// livez says that the process answers. It asks nobody: whatever the loop waits for is
// an answer of the brokers, of which a restart would not bring one sooner, and
// sidecars that were all restarted while brokers are away would only have to find
// their way back into the group afterwards.
func livez(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "alive") }

// readyz says whether the partitions of this instance are worked on, or with 503 what
// is missing: in words for those who may see the status. A spare instance, which has
// none, is ready, and so is one that is behind.
func readyz(board Board, known access) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		st := board.Status(r.Context())
		switch {
		case st.Ready:
			say(w, http.StatusOK, "ready")
		case known.has(r):
			say(w, http.StatusServiceUnavailable, "not ready: "+st.NotReady)
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
