package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

func TestClassify(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	slowDial := &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	wrap := func(err error) error { return fmt.Errorf("commit offsets of group %q: %w", "g", err) }
	for _, test := range []struct {
		err  error
		want class
		ours bool // no connection failed
	}{
		{err: nil, want: noClass},
		{err: context.Canceled, want: noClass},
		{err: wrap(context.Canceled), want: noClass},
		{err: fmt.Errorf("unable to dial: %w", &net.OpError{Op: "dial", Err: context.Canceled}), want: noClass},
		{err: kgo.ErrClientClosed, want: noClass},
		{err: errVoid, want: noClass},
		{err: wrap(errTopology), want: noClass},
		{err: usage(errors.New("the metadata is foreign"), ""), want: noClass},

		{err: kerr.NotEnoughReplicas, want: brokerClass},
		{err: wrap(kerr.ProducerFenced), want: brokerClass},
		{err: kerr.RequestTimedOut, want: brokerClass}, // said by a broker
		{err: &kgo.ErrGroupSession{Err: wrap(kerr.UnknownMemberID)}, want: brokerClass},
		{err: fmt.Errorf("unable to commit: %w", errors.Join(kerr.UnknownServerError, kerr.TopicAuthorizationFailed)), want: brokerClass},
		{err: &kadm.ShardErrors{Name: "ListOffsets", Errs: []kadm.ShardError{{Err: kerr.NotLeaderForPartition}}}, want: brokerClass},
		{err: usage(wrap(kerr.GroupAuthorizationFailed), ""), want: brokerClass},
		{err: wrap(fmt.Errorf("%w: it is about 2 groups", errAnswer)), want: brokerClass},
		{err: errRefused, want: brokerClass},
		{err: &kgo.ErrDataLoss{}, want: brokerClass},
		{err: kerr.SaslAuthenticationFailed, want: brokerClass},

		{err: refused, want: networkClass},
		{err: fmt.Errorf("unable to dial: %w", refused), want: networkClass},
		{err: slowDial, want: networkClass},
		{err: wrap(io.EOF), want: networkClass},
		{err: io.ErrUnexpectedEOF, want: networkClass},
		{err: wrap(net.ErrClosed), want: networkClass},
		{err: tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, want: networkClass},
		{err: wrap(&tls.CertificateVerificationError{Err: io.EOF}), want: networkClass},
		{err: usage(&tls.CertificateVerificationError{Err: io.EOF}, "compare"), want: networkClass},
		{err: &kgo.ErrGroupSession{Err: io.EOF}, want: networkClass},
		{err: errors.New("the broker connection has died"), want: networkClass},
		{err: wrap(context.DeadlineExceeded), want: networkClass, ours: true},
		{err: kgo.ErrRecordTimeout, want: networkClass, ours: true},

		{err: wrap(timestamp.ErrInvalid), want: recordClass},
		{err: wrap(errMarker), want: recordClass},
		{err: wrap(kerr.MessageTooLarge), want: recordClass},
		{err: failed(wrap(kerr.InvalidTimestamp), "raise it"), want: recordClass},
		{err: kerr.InvalidRecord, want: recordClass},
		{err: &kgo.ErrDecompressTooLarge{}, want: recordClass},
	} {
		if got := classify(test.err); got != test.want {
			t.Errorf("%v: class %v, want %v", test.err, got, test.want)
		}
		if got := outOfTime(test.err); got != test.ours {
			t.Errorf("%v: ours %v, want %v", test.err, got, test.ours)
		}
	}
}

// A fault that goes on is told at once, and every 30 s from then on, with what
// was left out; one that comes again later is told at once. The network's are
// told together.
func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := newAlarm(slog.New(slog.NewTextHandler(&out, nil)))
		told := func(msg string) int { return strings.Count(out.String(), `msg="`+msg+`"`) }
		for range 600 {
			a.raise("one refuses", kerr.NotEnoughReplicas)
			a.raise("one is away", context.DeadlineExceeded)
			a.raise("two is away", context.DeadlineExceeded)
			time.Sleep(time.Second)
		}
		if n := told("one refuses"); n != 20 {
			t.Errorf("a refusal of ten minutes was told %d times", n)
		}
		if n, m := told("one is away"), told("two is away"); n == 0 || m == 0 || n+m > 22 {
			t.Errorf("an outage of ten minutes was told %d and %d times", n, m)
		}
		if !strings.Contains(out.String(), "class=broker suppressed=29") {
			t.Errorf("what was left out is not told:\n%s", out.String())
		}
		time.Sleep(time.Minute)
		a.raise("one refuses", kerr.NotEnoughReplicas)
		if n := told("one refuses"); n != 21 {
			t.Error("what came again was not told")
		}
		want := Counts{Broker: 601, Network: 1200}
		if got := a.snapshot(); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// What fails on a connection reaches us too. It is counted once.
func TestLinesCountOnce(t *testing.T) {
	a := newAlarm(slog.New(slog.DiscardHandler))
	lost := fmt.Errorf("read: %w", io.EOF)
	lines{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{ReadErr: lost})
	a.raise("starting over", fmt.Errorf("end the transaction: %w", lost))
	lines{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{ReadErr: kgo.ErrClientClosed})
	lines{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{WriteErr: context.DeadlineExceeded})
	lines{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{})
	lines{a}.OnBrokerConnect(kgo.BrokerMetadata{}, 0, nil, context.Canceled)
	a.raise("fenced", kerr.ProducerFenced)
	if got, want := a.snapshot(), (Counts{Network: 1, Broker: 1, Fencings: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// Two partitions that stand still for different reasons: each is told of.
func TestEachPartitionThatStandsStillIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		a := newAlarm(slog.New(slog.NewTextHandler(io.Writer(&b), nil)))
		for range 20 { // ten minutes
			a.cry("0", "a partition stands still; it is tried again every 30s", kerr.MessageTooLarge, "partition", 0)
			time.Sleep(5 * time.Second)
			a.cry("1", "a partition stands still; it is tried again every 30s", errFew, "partition", 1)
			time.Sleep(25 * time.Second)
		}
		if !strings.Contains(b.String(), "partition=1") {
			t.Errorf("in ten minutes, partition 1 was never told of")
		}
	})
}
