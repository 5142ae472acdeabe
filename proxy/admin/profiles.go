package admin

import (
	"net"
	"net/http"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// longestProfile is the longest CPU profile.
const longestProfile = 60 * time.Second

// profiles serves what `go tool pprof` requests. It replaces net/http/pprof, which adds half
// a megabyte to the binary, mostly for a page of links.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/profile", processor)
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		mux.HandleFunc("/debug/pprof/"+name, func(w http.ResponseWriter, r *http.Request) {
			debug, _ := strconv.Atoi(r.FormValue("debug"))
			if debug > 0 {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			} else {
				w.Header().Set("Content-Type", "application/octet-stream")
			}
			_ = pprof.Lookup(name).WriteTo(w, debug)
		})
	}
	return mux
}

func processor(w http.ResponseWriter, r *http.Request) {
	long := 30 * time.Second
	if n, err := strconv.Atoi(r.FormValue("seconds")); err == nil && n > 0 {
		long = min(time.Duration(n)*time.Second, longestProfile)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := pprof.StartCPUProfile(w); err != nil {
		http.Error(w, err.Error(), http.StatusConflict) // another one is made
		return
	}
	defer pprof.StopCPUProfile()
	select {
	case <-time.After(long):
	case <-r.Context().Done():
	}
}

// forwarded are headers by which a proxy says for whom it forwards a request.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"}

// loopbackOnly allows only requests from this machine: both ends of the connection are
// loopback addresses. Headers can only exclude a request, because something on this machine
// may forward requests of others. A mesh's proxy connects from a loopback address, but to
// the address of the pod; and a browser may send requests for a foreign page whose name was
// made to resolve to 127.0.0.1.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		local := at != nil && loopback(at.String()) && loopback(r.RemoteAddr) && named(r.Host)
		for _, key := range forwarded {
			local = local && len(r.Header.Values(key)) == 0
		}
		if !local {
			http.Error(w, "profiles are served only to this machine, at localhost: use kubectl port-forward or the like", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// named reports whether a request was made to this machine by name or by address.
func named(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil { // it is the usual port
		name, host = host, net.JoinHostPort(strings.Trim(host, "[]"), "80")
	}
	return strings.EqualFold(name, "localhost") || loopback(host)
}
