// Package admin serves health, status and metrics over HTTP. It knows Tidemark only by its
// status: it changes nothing, and a request costs the loop no more than making a status.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// Board provides the status; see status.Publisher.
type Board interface {
	Status(ctx context.Context) *status.Status
}

// Limits against clients that are slow, send too much, or never finish.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = longestProfile + 30*time.Second
	idleTimeout   = 30 * time.Second
	maxHeader     = 16 << 10
	maxBody       = 1 << 10
	maxConns      = 256
	closeTime     = time.Second
)

// Listen opens the admin port, before anything else is done, so that a port in use is
// reported at once. It returns nil if the port is off. An error is a *fault.Fault with exit
// code 2.
func Listen(cfg config.Config) (net.Listener, error) {
	if cfg.Admin == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", string(cfg.Admin))
	if err != nil {
		hint := "change TIDEMARK_ADMIN, or turn the admin port off with TIDEMARK_ADMIN=off"
		if errors.Is(err, syscall.EADDRINUSE) {
			hint = "another process uses the port, perhaps another Tidemark: " + hint
		}
		return nil, &fault.Fault{Code: 2, Err: fmt.Errorf("open the admin port TIDEMARK_ADMIN=%s: %w", cfg.Admin, err), Advice: hint}
	}
	return &fewConns{Listener: l, most: maxConns}, nil
}

// Serve answers requests until stop is called, which waits until everything is closed. It
// does nothing without a listener.
func Serve(l net.Listener, cfg config.Config, board Board, log *slog.Logger) (stop func()) {
	if l == nil {
		return func() {}
	}
	s := &http.Server{
		Handler:           Handler(cfg, board),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken handshakes and the like
	}
	said := ""
	warn := func(err error) { // of every handshake; one after the other
		if said != err.Error() {
			said = err.Error()
			log.Warn("cannot use the admin port's certificate; keeping the one loaded before", "err", err)
		}
	}
	if t := cfg.AdminTLS(warn); t != nil {
		t.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, t)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin port has failed; health checks, metrics and the status page are gone until a restart", "err", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
		<-ended
	}
}

// fewConns limits how many connections are open at once. One more closes the oldest: clients
// that keep connections open must not lock out the probes, or the process would be killed.
type fewConns struct {
	net.Listener
	most int

	mu   sync.Mutex
	open []*counted // the oldest first
}

// Accept waits for a connection.
func (l *fewConns) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	young := &counted{c, l}
	l.mu.Lock()
	l.open = append(l.open, young)
	old := l.open[0]
	many := len(l.open) > l.most
	l.mu.Unlock()
	if many {
		_ = old.Close()
	}
	return young, nil
}

type counted struct {
	net.Conn
	of *fewConns
}

// Close also removes the connection from the list.
func (c *counted) Close() error {
	c.of.mu.Lock()
	c.of.open = slices.DeleteFunc(c.of.open, func(o *counted) bool { return o == c })
	c.of.mu.Unlock()
	return c.Conn.Close()
}
