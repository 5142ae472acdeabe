package proxy

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
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
// answer is lost. It can also lose some requests and answers, be away for a
// while, or freeze, which is how brokers see a suspended process.
type link struct {
	dial   dialer
	mu     sync.Mutex
	conns  []*wire
	fuse   int           // requests left; 0: the link holds
	lossy  bool          // the last one is lost
	before int16         // kind of request that is never sent: the link breaks before; 0: none
	snaps  map[int16]int // by request: how many answers are to be lost
	drops  map[int16]int // by request: how many are to be lost
	chance float64       // of any request: that it or its answer is lost
	rnd    *rand.Rand    // of chance
	away   bool          // nobody is there
	thaw   chan struct{} // closed when it is not frozen any more; nil: it is not
	delay  atomic.Int64  // ns before each request is sent
	broken chan struct{}

	requestsLost, answersLost int // by chance
}

func newLink(dial dialer) *link {
	return &link{dial: dial, broken: make(chan struct{}), snaps: map[int16]int{}, drops: map[int16]int{}}
}

// errCut is what a client hears of brokers that are not there: with any other
// error it does not pause between attempts. With this one there is still a
// place where it does not (AddPartitionsToTxn), so that to be refused takes
// time, as it does in a network.
var errCut = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

func (l *link) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := l.reach(ctx); err != nil {
		return nil, err
	}
	conn, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away || l.isBroken() {
		conn.Close() // it was cut just now
		return nil, errCut
	}
	w := &wire{Conn: conn, link: l, closed: make(chan struct{})}
	l.conns = append(l.conns, w)
	return w, nil
}

// refusedAfter is how long it takes to be told that nobody is there.
const refusedAfter = 50 * time.Millisecond

// reach waits while the link is frozen, and tells whether somebody is there.
func (l *link) reach(ctx context.Context) error {
	l.mu.Lock()
	thaw, cut := l.thaw, l.away || l.isBroken()
	l.mu.Unlock()
	var refused <-chan time.Time
	switch {
	case cut:
		refused = time.After(refusedAfter)
		thaw = nil
	case thaw == nil:
		return nil
	}
	select {
	case <-refused:
		return errCut
	case <-thaw:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
	l.drop()
}

// drop breaks all connections.
func (l *link) drop() {
	for _, conn := range l.conns {
		conn.Close()
	}
	l.conns = nil
}

// leave cuts the link until comeBack.
func (l *link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = true
	l.drop()
}

func (l *link) comeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = false
}

// freeze has everything wait that is sent or comes, until melt.
func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.thaw == nil {
		l.thaw = make(chan struct{})
	}
}

func (l *link) melt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.thaw != nil {
		close(l.thaw)
		l.thaw = nil
	}
}

// lose loses a share of all requests, half of them before they are carried
// out and half after.
func (l *link) lose(chance float64, seed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chance, l.rnd = chance, rand.New(rand.NewPCG(seed, 5))
}

// heal takes away everything but what is broken for good.
func (l *link) heal() {
	l.melt()
	l.comeBack()
	l.lose(0, 0)
	l.breakAt(0, false)
	l.delay.Store(0)
}

// breakAt lets n requests pass. The nth still reaches its broker, unless lossy.
func (l *link) breakAt(n int, lossy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fuse, l.lossy = n, lossy
}

// breakBefore breaks the link for good before the next request of a kind.
func (l *link) breakBefore(key kmsg.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = key.Int16()
}

// loseAnswers loses the answers to the next n requests of a kind, and with
// each the connection.
func (l *link) loseAnswers(key kmsg.Key, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snaps[key.Int16()] = n
}

// loseRequests loses the next n requests of a kind, and with each the
// connection.
func (l *link) loseRequests(key kmsg.Key, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drops[key.Int16()] = n
}

// unlost returns how many requests and answers of a kind are still to be lost.
func (l *link) unlost(key kmsg.Key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drops[key.Int16()] + l.snaps[key.Int16()]
}

// fate is what happens to a request.
type fate struct{ lost, answerLost, cut, last bool }

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
		if l.before != 0 && l.before == key {
			f.last, f.lost = true, true
		}
		if l.snaps[key] > 0 {
			l.snaps[key]--
			f.answerLost = true
		}
		if l.drops[key] > 0 {
			l.drops[key]--
			f.cut = true
		}
	}
	if l.chance > 0 && l.rnd.Float64() < l.chance {
		if l.rnd.IntN(2) == 0 {
			f.lost = true
			l.requestsLost++
		} else {
			f.answerLost = true
			l.answersLost++
		}
	}
	return f
}

// wire is one connection of a link. The client writes a request at a time.
type wire struct {
	net.Conn
	link   *link
	once   sync.Once
	closed chan struct{}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// pass waits while the link is frozen.
func (w *wire) pass() {
	w.link.mu.Lock()
	thaw := w.link.thaw
	w.link.mu.Unlock()
	if thaw == nil {
		return
	}
	select {
	case <-thaw:
	case <-w.closed:
	}
}

func (w *wire) Read(b []byte) (n int, err error) {
	n, err = w.Conn.Read(b)
	w.pass()
	return n, err
}

func (w *wire) Write(b []byte) (n int, err error) {
	time.Sleep(time.Duration(w.link.delay.Load()))
	w.pass()
	f := w.link.judge(b)
	switch {
	case f.lost:
		err = errCut
	case f.cut: // noticed, as on a real line, when no answer comes
		n = len(b)
	default:
		n, err = w.Conn.Write(b)
	}
	switch {
	case f.last:
		w.link.cut()
	case f.lost, f.answerLost, f.cut:
		w.Close()
	}
	return n, err
}
