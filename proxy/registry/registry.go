// Package registry gets schemas from a schema registry, each of them once, and without
// blocking its callers unless they choose to wait.
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
	// unknownFor is how long an answer that there is no such schema is valid. Producers
	// register a schema before they write, but registries replicate with a delay, and
	// schemas are registered later by hand.
	unknownFor = 30 * time.Second
	// answerTime is how long a registry may take to answer.
	answerTime = 5 * time.Second
	// firstPause and longestPause are the pauses between retries.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Options say where the registry is, and how its schemas are compiled.
type Options struct {
	URLs []string       // servers of one registry; if one fails, the next is asked
	Auth []sr.ClientOpt // the login
	// DialTLS opens connections to https URLs. nil: net/http does.
	DialTLS func(ctx context.Context, network, address string) (net.Conn, error)
	// ProxiedTLS is used through a proxy, where net/http does not call DialTLS.
	ProxiedTLS *tls.Config
	// Compile makes readers of a schema, and Unusable of one that cannot be used.
	Compile  func(timestamp.Schema) *timestamp.Readers
	Unusable func(why string) *timestamp.Readers
	// Trouble is called with the error of every request that failed on all servers and is
	// retried, from goroutines of the registry.
	Trouble func(error)
	// Transport replaces the network in tests.
	Transport http.RoundTripper
}

// Registry knows schemas by id, and asks for those that it does not know. It is safe for
// concurrent use.
//
// The schema of an id never changes, so its readers are kept as long as there is room. That
// there is no such schema may change, so that is kept for unknownFor. Anything else that the
// registry answers is retried, with growing pauses, until there is a schema or none.
type Registry struct {
	opts    Options
	servers []server
	life    context.Context
	end     context.CancelFunc
	asking  sync.WaitGroup

	known  *lru.Cache[timestamp.SchemaID, *answer]
	latest atomic.Pointer[answer] // usually the one that is needed next
	down   atomic.Bool            // the last request failed on all servers

	mu        sync.Mutex
	questions map[timestamp.SchemaID]*question
	answered  func()
}

// answer is what the registry answered about an id.
type answer struct {
	id      timestamp.SchemaID
	readers *timestamp.Readers
	err     error // there is no such schema
	until   time.Time
}

// question is a schema that is being asked for.
type question struct {
	done  chan struct{} // closed when there is an answer, or the registry is closed
	tried chan struct{} // closed when all servers have failed once
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
	r := &Registry{opts: o, questions: map[timestamp.SchemaID]*question{}, answered: func() {}}
	for _, url := range o.URLs {
		opts := append([]sr.ClientOpt{sr.URLs(url), sr.HTTPClient(web), sr.UserAgent("tidemark")}, o.Auth...)
		cl, err := sr.NewClient(opts...)
		if err != nil {
			return nil, fmt.Errorf("schema registry: %w", err)
		}
		native, err := newApicurio(url, opts, *web)
		if err != nil {
			return nil, fmt.Errorf("schema registry: %w", err)
		}
		r.servers = append(r.servers, server{cl, native})
	}
	known, err := lru.New[timestamp.SchemaID, *answer](remembered)
	if err != nil {
		panic(err) // the size is positive
	}
	r.known = known
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// keepTLS allows redirects, as http.Client does, but not from https to http, where anybody
// could read the login.
func keepTLS(req *http.Request, via []*http.Request) error {
	const most = 10
	switch {
	case len(via) >= most:
		return fmt.Errorf("redirected %d times", most)
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to " + req.URL.Scheme)
	}
	return nil
}

// Close ends all questions, and waits until they have.
func (r *Registry) Close() {
	r.end()
	r.asking.Wait()
}

// Notify sets fn to be called after every answer, in place of the last one. It must not
// block.
func (r *Registry) Notify(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = fn
}

// Readers implements timestamp.Schemas.
func (r *Registry) Readers(id timestamp.SchemaID) (*timestamp.Readers, error) {
	if a := r.latest.Load(); a != nil && a.id == id {
		return a.readers, nil
	}
	if a := r.recall(id); a != nil {
		return a.readers, a.err
	}
	r.ask(id)
	return nil, &timestamp.Pending{ID: id}
}

// recall returns what is known about an id, nil for nothing.
func (r *Registry) recall(id timestamp.SchemaID) *answer {
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

// Known reports whether Readers would have an answer. If not, it asks the registry, even if
// the answer was known once: it may have been evicted.
func (r *Registry) Known(id timestamp.SchemaID) bool {
	if r.recall(id) != nil {
		return true
	}
	r.ask(id)
	return false
}

// Has reports whether the registry is known to have a schema. If not, it asks again, at most
// every unknownFor.
func (r *Registry) Has(id timestamp.SchemaID) bool {
	a := r.recall(id)
	if a == nil {
		r.ask(id)
	}
	return a != nil && a.err == nil
}

// Wait waits for a schema that Readers has asked for. It gives up when ctx is done, and at
// once while the registry does not answer; the error says why, if that is known.
func (r *Registry) Wait(ctx context.Context, id timestamp.SchemaID) error {
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
	fault := fmt.Errorf("ask for schema %s: %w", id, cmp.Or(context.Cause(ctx), errDown))
	if told := q.fault.Load(); told != nil {
		fault = *told
	}
	return fault
}

var errDown = errors.New("the schema registry does not answer")

// ask asks for a schema, unless that is under way already.
func (r *Registry) ask(id timestamp.SchemaID) *question {
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

func (r *Registry) untilAnswered(id timestamp.SchemaID, q *question) {
	pause := firstPause
	for try := 0; ; try++ {
		a, err := r.try(id, r.servers[try%len(r.servers)])
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
		if (try+1)%len(r.servers) == 0 { // all of them have been tried
			r.down.Store(true)
			if try+1 == len(r.servers) {
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

// try asks one server once. An error means that there is no answer.
func (r *Registry) try(id timestamp.SchemaID, at server) (*answer, error) {
	s, err := fetch(r.life, at, id)
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
