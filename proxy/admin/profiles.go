package admin

import (
	"net"
	"net/http"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// longestProfile is for how long the processor may be watched.
const longestProfile = 60 * time.Second

// profiles serves what `go tool pprof` asks for. It is not net/http/pprof, which takes
// half a megabyte of the binary, mostly for a page of links.
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

// forwarded are headers by which something in between says for whom it asks.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"}

// loopbackOnly lets only those in who ask from this machine: both ends of the connection
// are on it. What headers say can only keep somebody out, for something on this machine
// may ask for others. The proxy of a mesh asks from a loopback address, for whoever it
// is, but at the address of the pod; and a browser asks for a page from elsewhere, which
// may have had its own name resolved to 127.0.0.1.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		local := at != nil && loopback(at.String()) && loopback(r.RemoteAddr) && named(r.Host)
		for _, key := range forwarded {
			local = local && len(r.Header.Values(key)) == 0
		}
		if !local {
			http.Error(w, "profiles are only for this machine, asked for at localhost: use kubectl port-forward or the like", http.StatusForbidden)
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
