package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// The brokers are probed beside the loop, which may wait for them for long. One probe
// asks any broker where partitions are, the other asks the group's coordinator
// about the group: that is what is needed to read on and what is needed to commit. One that
// fails is trouble; both are an outage. Neither needs a right that the group's reader
// does not have.

const (
	probeEvery      = 10 * time.Second
	metadataTimeout = 2 * time.Second
	adminTimeout    = 5 * time.Second
)

// Probe is how the brokers answered, last.
type Probe struct {
	At   time.Time // zero: not asked yet
	Took time.Duration
	Err  error
}

// Probes are the answers to both questions.
type Probes struct {
	Metadata, Admin Probe
}

// verdict returns which of them failed, once both have been asked.
func (p Probes) verdict() (asked bool, failed []string) {
	for _, probe := range []struct {
		Probe
		what string
	}{{p.Metadata, "the brokers do not tell where partitions are"}, {p.Admin, "the group's coordinator does not tell of the group"}} {
		if probe.Err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", probe.what, probe.Err))
		}
	}
	return !p.Metadata.At.IsZero() && !p.Admin.At.IsZero(), failed
}

// probe asks the brokers every now and then until ctx is done, from when somebody
// looks at the board.
func (b *Board) probe(ctx context.Context, cfg config.Config) {
	for {
		pause := probeEvery
		if !b.watched.Load() || !b.probeOnce(ctx, cfg) {
			pause = 200 * time.Millisecond // nobody looks, or a session is just beginning
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (b *Board) probeOnce(ctx context.Context, cfg config.Config) (asked bool) {
	adm := b.adm.Load()
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
	for _, p := range []Probe{metadata, admin} {
		if ctx.Err() != nil || errors.Is(p.Err, kgo.ErrClientClosed) {
			return false // the session ended meanwhile; that says nothing of the brokers
		}
	}
	b.probes.Store(&Probes{metadata, admin})
	return true
}

func ask(ctx context.Context, timeout time.Duration, question func(context.Context) error) Probe {
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := question(asking)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", timeout)
	}
	return Probe{At: time.Now(), Took: time.Since(began), Err: err}
}

// reach says which client the brokers are probed with from now on; nil: none.
func (b *Board) reach(adm *kadm.Client) { b.adm.Store(adm) }
