// Package admin serves health, status and metrics over HTTP. All that it knows of
// Tidemark is the status that a board shows: it changes nothing, and what it is asked
// costs the loop no more than a look.
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

// Board shows the status of what is served; see proxy.Board.
type Board interface {
	Status(ctx context.Context) *status.Status
}

// Whoever asks slowly, or much, or never ends, is not waited for.
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

// Listen opens the admin port, before anything else is done: that it is taken is
// better known at once. It returns nil if the port is off. An error is a *proxy.Fault
// with exit code 2.
func Listen(cfg config.Config) (net.Listener, error) {
	if cfg.Admin == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", string(cfg.Admin))
	if err != nil {
		hint := "change TIDEMARK_ADMIN, or turn the admin port off with TIDEMARK_ADMIN=off"
		if errors.Is(err, syscall.EADDRINUSE) {
			hint = "another process has the port, maybe another Tidemark: " + hint
		}
		return nil, &fault.Fault{Code: 2, Err: fmt.Errorf("open the admin port TIDEMARK_ADMIN=%s: %w", cfg.Admin, err), Advice: hint}
	}
	return &fewConns{Listener: l, most: maxConns}, nil
}

// Serve answers at the listener until stop is called, which waits until all is closed.
// Without a listener it does nothing.
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
			log.Warn("the certificate of the admin port is of no use as it is; what it was before stays in use", "err", err)
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
			log.Error("the admin port does not answer any more", "err", err)
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

// fewConns lets so many connections be open at once. One more, and the oldest has to go:
// whoever keeps connections open must not keep the probes out, for want of whose answer
// the process would be killed.
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

// Close also takes the connection off the list.
func (c *counted) Close() error {
	c.of.mu.Lock()
	c.of.open = slices.DeleteFunc(c.of.open, func(o *counted) bool { return o == c })
	c.of.mu.Unlock()
	return c.Conn.Close()
}
