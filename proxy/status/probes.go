package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
	"github.com/tidemarkhq/tidemark/proxy/config"
)

// The brokers are probed in a goroutine of its own, because the loop may wait for them for a
// long time. One probe asks any broker for metadata, which reading needs; the other asks the
// group's coordinator, which commits need. If one fails the process is degraded; if both
// fail the brokers are unreachable. Neither needs a permission that consuming does not need.

const (
	probeEvery      = 10 * time.Second
	probeSoon       = 2 * time.Second // while they do not answer, or while somebody looks and not everything is worked on
	metadataTimeout = 2 * time.Second
	adminTimeout    = 5 * time.Second
)

// Probe is the last answer to a probe.
type Probe struct {
	At   time.Time // zero: not asked yet
	Took time.Duration
	Err  error
}

// Probes are the last answers to both probes.
type Probes struct {
	Metadata, Admin Probe
}

// verdict returns what is to be said of failed probes, whether both have failed, and whether
// both have been made.
func (p Probes) verdict() (failed []string, both, asked bool) {
	asked = !p.Metadata.At.IsZero() && !p.Admin.At.IsZero()
	switch {
	case p.Metadata.Err != nil && p.Admin.Err != nil:
		return []string{fmt.Sprintf("no broker answers: %v", p.Metadata.Err)}, true, asked
	case p.Metadata.Err != nil:
		return []string{fmt.Sprintf("the brokers do not answer a metadata request: %v", p.Metadata.Err)}, false, asked
	case p.Admin.Err != nil:
		return []string{fmt.Sprintf("the group's coordinator does not describe the group: %v", p.Admin.Err)}, false, asked
	}
	return nil, false, asked
}

// probe probes the brokers every probeEvery until ctx is done, once somebody has asked
// for a status.
func (p *Publisher) probe(ctx context.Context, cfg config.Config) {
	for {
		pause := probeEvery
		if !p.watched.Load() || !p.probeOnce(ctx, cfg) {
			pause = 200 * time.Millisecond // nobody has asked yet, or a session is just beginning
		} else if failed, _, _ := p.probes.Load().verdict(); failed != nil {
			pause = probeSoon // that they are back is to be seen soon
		}
		select {
		case <-time.After(pause):
		case <-p.kick:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Publisher) probeOnce(ctx context.Context, cfg config.Config) (asked bool) {
	adm := p.adm.Load()
	if adm == nil {
		return false
	}
	metadata := ask(ctx, metadataTimeout, func(ctx context.Context) error {
		listed, err := adm.Metadata(ctx, cfg.Topics...)
		if err == nil {
			err = listed.Topics.Error()
		}
		return err
	})
	admin := ask(ctx, adminTimeout, func(ctx context.Context) error {
		groups, err := adm.DescribeGroups(ctx, cfg.Group)
		if err == nil {
			err = groups.Error()
		}
		if errors.Is(err, kerr.GroupIDNotFound) {
			err = nil // the coordinator does answer; nobody has joined yet
		}
		return err
	})
	for _, answer := range []Probe{metadata, admin} {
		if ctx.Err() != nil || errors.Is(answer.Err, kgo.ErrClientClosed) {
			return false // the session ended meanwhile, which says nothing about the brokers
		}
	}
	if p.probes.Swap(&Probes{metadata, admin}).Metadata.At.IsZero() {
		close(p.probed)
	}
	return true
}

func ask(ctx context.Context, timeout time.Duration, question func(context.Context) error) Probe {
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := answerTo(asking, question)
	if sharded, ok := errors.AsType[*kadm.ShardErrors](err); ok && len(sharded.Errs) > 0 {
		err = sharded.Errs[0].Err // one broker was asked
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", clocks.Words(timeout))
	}
	return Probe{At: time.Now(), Took: time.Since(began), Err: err}
}

// answerTo asks a question and waits no longer than its context is good for. The client does
// not end a request while its connection opens, which takes a broker that hangs ten seconds.
func answerTo(ctx context.Context, question func(context.Context) error) error {
	answer := make(chan error, 1) // buffered: nobody may be there any more
	go func() { answer <- question(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ProbeWith sets the client to probe the brokers with; nil: none.
func (p *Publisher) ProbeWith(adm *kadm.Client) { p.adm.Store(adm) }
