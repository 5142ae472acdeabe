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
	"sync"
	"syscall"
	"time"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Board shows the status of what is served; see proxy.Board.
type Board interface {
	Status(ctx context.Context) *proxy.Status
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
		return nil, &proxy.Fault{Code: 2, Err: fmt.Errorf("open the admin port TIDEMARK_ADMIN=%s: %w", cfg.Admin, err), Advice: hint}
	}
	return &fewConns{Listener: l, free: make(chan struct{}, maxConns)}, nil
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
	if t := cfg.AdminTLS(); t != nil {
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

// fewConns lets so many connections be open at once; others wait to be accepted.
type fewConns struct {
	net.Listener
	free chan struct{}
}

// Accept waits for a connection, and for one of those open to end if there are many.
func (l *fewConns) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &counted{Conn: c, done: sync.OnceFunc(func() { <-l.free })}, nil
}

type counted struct {
	net.Conn
	done func()
}

// Close lets another connection in.
func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}
