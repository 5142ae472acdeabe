package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// link is the network between a sidecar and the brokers. It can be made to
// break at the nth request from now on, which lands in places that no clock
// would find: a request that is lost, or one that is carried out and whose
// answer is lost.
type link struct {
	dial   dialer
	mu     sync.Mutex
	conns  []net.Conn
	fuse   int           // requests left; 0: the link holds
	lossy  bool          // the last one is lost
	snaps  map[int16]int // by request: how many answers are to be lost
	delay  atomic.Int64  // ns before each request is sent
	broken chan struct{}
}

func newLink(dial dialer) *link {
	return &link{dial: dial, broken: make(chan struct{}), snaps: map[int16]int{}}
}

// errCut is what a client hears of brokers that are not there: with any other
// error it does not pause between attempts.
var errCut = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

func (l *link) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if l.isBroken() {
		return nil, errCut
	}
	conn, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isBroken() {
		conn.Close()
		return nil, errCut
	}
	l.conns = append(l.conns, conn)
	return wire{conn, l}, nil
}

func (l *link) isBroken() bool {
	select {
	case <-l.broken:
		return true
	default:
		return false
	}
}

// cut breaks the link for good.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isBroken() {
		return
	}
	close(l.broken)
	for _, conn := range l.conns {
		conn.Close()
	}
}

// breakAt lets n requests pass. The nth still reaches its broker, unless lossy.
func (l *link) breakAt(n int, lossy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fuse, l.lossy = n, lossy
}

// loseAnswers loses the answers to the next n requests of a kind, and with
// each the connection.
func (l *link) loseAnswers(key kmsg.Key, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snaps[key.Int16()] = n
}

// fate is what happens to a request.
type fate struct{ lost, answerLost, last bool }

func (l *link) judge(request []byte) (f fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fuse > 0 {
		l.fuse--
		f.last = l.fuse == 0
		f.lost = f.last && l.lossy
	}
	if len(request) >= 6 {
		key := int16(binary.BigEndian.Uint16(request[4:])) // behind the size
		if l.snaps[key] > 0 {
			l.snaps[key]--
			f.answerLost = true
		}
	}
	return f
}

// wire is one connection of a link. The client writes a request at a time.
type wire struct {
	net.Conn
	link *link
}

func (w wire) Write(b []byte) (n int, err error) {
	time.Sleep(time.Duration(w.link.delay.Load()))
	f := w.link.judge(b)
	if f.lost {
		err = errCut
	} else {
		n, err = w.Conn.Write(b)
	}
	switch {
	case f.last:
		w.link.cut()
	case f.answerLost:
		w.Conn.Close()
	}
	return n, err
}
