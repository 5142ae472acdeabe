// Package registry gets schemas from a schema registry: each of them once, and
// without making anybody wait who does not want to.
package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

const (
	// remembered is how many schemas are kept compiled.
	remembered = 1000
	// unknownFor is how long a registry's word is taken that it does not have a
	// schema. Producers register first and write then, but registries copy one
	// another, and people mend things.
	unknownFor = 30 * time.Second
	// answerTime is how long a registry may take to answer.
	answerTime = 5 * time.Second
	// firstPause and longestPause are between questions that were not answered.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Options say where the registry is and what is made of its schemas.
type Options struct {
	URLs []string       // of one registry; the next is asked where one fails
	Auth []sr.ClientOpt // who is asking
	// DialTLS makes connections to https URLs. nil: Go does.
	DialTLS func(ctx context.Context, network, address string) (net.Conn, error)
	// ProxiedTLS is for those that are reached through a proxy, where DialTLS is not asked.
	ProxiedTLS *tls.Config
	// Compile makes readers of a schema, and Unusable of one that cannot be had.
	Compile  func(timestamp.Schema) *timestamp.Readers
	Unusable func(why string) *timestamp.Readers
	// Trouble is told of every question that was not answered, and that is
	// therefore asked again. It is called from goroutines of the registry's.
	Trouble func(error)
	// Transport takes the place of the network, in tests.
	Transport http.RoundTripper
}

// Registry knows schemas by id, and asks for those that it does not know. It is
// safe for use by several goroutines.
//
// What a registry says of an id is for ever, but that it knows nothing of it: so
// readers are kept as long as there is room, and that for a while. No answer is no
// answer: the question is asked again, with ever longer pauses, until there is one.
type Registry struct {
	opts    Options
	clients []*sr.Client
	life    context.Context
	end     context.CancelFunc
	asking  sync.WaitGroup

	known  *lru.Cache[uint32, *answer]
	latest atomic.Pointer[answer] // most often the one that is wanted next
	down   atomic.Bool            // the last question was not answered

	mu        sync.Mutex
	questions map[uint32]*question
	answered  func()
}

// answer is what is known of an id.
type answer struct {
	id      uint32
	readers *timestamp.Readers
	err     error // there is no such schema
	until   time.Time
}

// question is one that is being asked.
type question struct {
	done  chan struct{} // closed when there is an answer, or never will be
	tried chan struct{} // closed when there was none for the first time
	fault atomic.Pointer[error]
}

var _ timestamp.Schemas = (*Registry)(nil)

// New returns a registry that works until it is closed.
func New(o Options) (*Registry, error) {
	transport := o.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialTLSContext, t.TLSClientConfig = o.DialTLS, o.ProxiedTLS
		transport = t
	}
	web := &http.Client{Timeout: answerTime, Transport: bounded{transport}, CheckRedirect: keepTLS}
	r := &Registry{opts: o, questions: map[uint32]*question{}, answered: func() {}}
	for _, url := range o.URLs {
		opts := append([]sr.ClientOpt{sr.URLs(url), sr.HTTPClient(web), sr.UserAgent("tidemark")}, o.Auth...)
		cl, err := sr.NewClient(opts...)
		if err != nil {
			return nil, fmt.Errorf("schema registry: %w", err)
		}
		r.clients = append(r.clients, cl)
	}
	known, err := lru.New[uint32, *answer](remembered)
	if err != nil {
		panic(err) // the size is positive
	}
	r.known = known
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// keepTLS lets a registry send us elsewhere, as http.Client would, but not from TLS to
// where everybody can read the login along.
func keepTLS(req *http.Request, via []*http.Request) error {
	const most = 10
	switch {
	case len(via) >= most:
		return fmt.Errorf("sent elsewhere %d times", most)
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("sent from https to " + req.URL.Scheme)
	}
	return nil
}

// Close ends all questions, and waits until they have.
func (r *Registry) Close() {
	r.end()
	r.asking.Wait()
}

// Notify has fn called after every answer, in place of what was called before. It
// must not wait.
func (r *Registry) Notify(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = fn
}

// Readers implements timestamp.Schemas.
func (r *Registry) Readers(id uint32) (*timestamp.Readers, error) {
	if a := r.latest.Load(); a != nil && a.id == id {
		return a.readers, nil
	}
	if a := r.recall(id); a != nil {
		return a.readers, a.err
	}
	r.ask(id)
	return nil, &timestamp.Pending{ID: id}
}

// recall returns what is known of an id.
func (r *Registry) recall(id uint32) *answer {
	a, ok := r.known.Get(id)
	switch {
	case !ok:
		return nil
	case a.err == nil:
		r.latest.Store(a)
		return a
	case time.Now().After(a.until):
		return nil
	}
	return a
}

// Known reports whether Readers would have an answer, and has it asked for if not:
// one that was there may have been forgotten.
func (r *Registry) Known(id uint32) bool {
	if r.recall(id) != nil {
		return true
	}
	r.ask(id)
	return false
}

// Has reports whether the registry is known to have a schema, and asks again, now and
// then, as long as it is not.
func (r *Registry) Has(id uint32) bool {
	a := r.recall(id)
	if a == nil {
		r.ask(id)
	}
	return a != nil && a.err == nil
}

// Wait waits for the answer to a question that Readers has asked. It gives up when
// ctx is done, and at once as long as the registry does not answer: the error says
// why, if that is known.
func (r *Registry) Wait(ctx context.Context, id uint32) error {
	if r.recall(id) != nil {
		return nil
	}
	q := r.ask(id)
	if !r.down.Load() {
		select {
		case <-q.done:
			return r.life.Err()
		case <-q.tried:
		case <-ctx.Done():
		}
	}
	fault := fmt.Errorf("ask for schema %d: %w", id, cmp.Or(context.Cause(ctx), errDown))
	if told := q.fault.Load(); told != nil {
		fault = *told
	}
	return fault
}

var errDown = errors.New("the schema registry does not answer")

// ask has a question asked, if it is not already.
func (r *Registry) ask(id uint32) *question {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.questions[id]
	if q == nil {
		q = &question{done: make(chan struct{}), tried: make(chan struct{})}
		r.questions[id] = q
		r.asking.Go(func() { r.untilAnswered(id, q) })
	}
	return q
}

func (r *Registry) untilAnswered(id uint32, q *question) {
	pause := firstPause
	for try := 0; ; try++ {
		a, err := r.try(id, r.clients[try%len(r.clients)])
		if err == nil {
			r.down.Store(false)
			r.learn(a, q)
			return
		}
		if r.life.Err() != nil {
			close(q.done)
			return
		}
		q.fault.Store(&err)
		if (try+1)%len(r.clients) == 0 { // all of them have been tried
			r.down.Store(true)
			if try+1 == len(r.clients) {
				close(q.tried)
			}
			r.opts.Trouble(err)
			select {
			case <-time.After(pause/2 + rand.N(pause/2)):
			case <-r.life.Done():
			}
			pause = min(2*pause, longestPause)
		}
	}
}

func (r *Registry) learn(a *answer, q *question) {
	r.known.Add(a.id, a)
	r.mu.Lock()
	delete(r.questions, a.id)
	answered := r.answered
	r.mu.Unlock()
	close(q.done)
	answered()
}

// try asks once. An error is no answer.
func (r *Registry) try(id uint32, cl *sr.Client) (*answer, error) {
	s, err := fetch(r.life, cl, id)
	a := &answer{id: id}
	switch unusable, bad := errors.AsType[*unusableError](err); {
	case err == nil:
		a.readers = r.opts.Compile(s)
	case bad:
		a.readers = r.opts.Unusable(unusable.Error())
	case isNotFound(err):
		a.err, a.until = fmt.Errorf("%w (asked again after %v)", err, unknownFor), time.Now().Add(unknownFor)
	default:
		return nil, err
	}
	return a, nil
}
