package fault

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
		want Class
		ours bool // no connection failed
	}{
		{err: nil, want: None},
		{err: context.Canceled, want: None},
		{err: wrap(context.Canceled), want: None},
		{err: fmt.Errorf("unable to dial: %w", &net.OpError{Op: "dial", Err: context.Canceled}), want: None},
		{err: kgo.ErrClientClosed, want: None},
		{err: NewError(None, "aborted"), want: None},
		{err: Usage(errors.New("the metadata is foreign"), ""), want: None},

		{err: kerr.NotEnoughReplicas, want: Broker},
		{err: wrap(kerr.ProducerFenced), want: Broker},
		{err: kerr.RequestTimedOut, want: Broker}, // said by a broker
		{err: &kgo.ErrGroupSession{Err: wrap(kerr.UnknownMemberID)}, want: Broker},
		{err: fmt.Errorf("unable to commit: %w", errors.Join(kerr.UnknownServerError, kerr.TopicAuthorizationFailed)), want: Broker},
		{err: &kadm.ShardErrors{Name: "ListOffsets", Errs: []kadm.ShardError{{Err: kerr.NotLeaderForPartition}}}, want: Broker},
		{err: Usage(wrap(kerr.GroupAuthorizationFailed), ""), want: Broker},
		{err: wrap(fmt.Errorf("%w: it is about 2 groups", ErrBadAnswer)), want: Broker},
		{err: ErrOffsetsRefused, want: Broker},
		{err: &kgo.ErrDataLoss{}, want: Broker},
		{err: kerr.SaslAuthenticationFailed, want: Broker},

		{err: refused, want: Network},
		{err: fmt.Errorf("unable to dial: %w", refused), want: Network},
		{err: slowDial, want: Network},
		{err: wrap(io.EOF), want: Network},
		{err: io.ErrUnexpectedEOF, want: Network},
		{err: wrap(net.ErrClosed), want: Network},
		{err: tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, want: Network},
		{err: wrap(&tls.CertificateVerificationError{Err: io.EOF}), want: Network},
		{err: Usage(&tls.CertificateVerificationError{Err: io.EOF}, "compare"), want: Network},
		{err: &kgo.ErrGroupSession{Err: io.EOF}, want: Network},
		{err: errors.New("the broker connection has died"), want: Network},
		{err: wrap(context.DeadlineExceeded), want: Network, ours: true},
		{err: kgo.ErrRecordTimeout, want: Network, ours: true},

		{err: wrap(timestamp.ErrInvalid), want: Record},
		{err: wrap(ErrNoWatermark), want: Record},
		{err: wrap(kerr.MessageTooLarge), want: Record},
		{err: Failed(wrap(kerr.InvalidTimestamp), "raise it"), want: Record},
		{err: kerr.InvalidRecord, want: Record},
		{err: &kgo.ErrDecompressTooLarge{}, want: Record},
	} {
		if got := Classify(test.err); got != test.want {
			t.Errorf("%v: class %v, want %v", test.err, got, test.want)
		}
		if got := TimedOut(test.err); got != test.ours {
			t.Errorf("%v: ours %v, want %v", test.err, got, test.ours)
		}
	}
}

// A fault that goes on is told at once, and every 30 s from then on, with what
// was left out; one that comes again later is told at once. The network's are
// told together.
func TestReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := NewReporter(slog.New(slog.NewTextHandler(&out, nil)))
		told := func(msg string) int { return strings.Count(out.String(), `msg="`+msg+`"`) }
		for range 600 {
			a.Warn("one refuses", kerr.NotEnoughReplicas)
			a.Warn("one is away", context.DeadlineExceeded)
			a.Warn("two is away", context.DeadlineExceeded)
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
		a.Warn("one refuses", kerr.NotEnoughReplicas)
		if n := told("one refuses"); n != 21 {
			t.Error("what came again was not told")
		}
		want := Counts{Broker: 601, Network: 1200}
		if got := a.Snapshot(); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// What many find out is told when it changes, and not by each of them.
func TestReporterTellsChanges(t *testing.T) {
	var out bytes.Buffer
	a := NewReporter(slog.New(slog.NewTextHandler(&out, nil)))
	for i, state := range []string{"", "seconds", "seconds", "", "", "seconds"} {
		a.Changed("times of x", state, slog.LevelWarn, "now "+state, "partition", i)
		a.Changed("times of y", "", slog.LevelWarn, "never")
	}
	var at []string
	for line := range strings.Lines(out.String()) {
		_, n, _ := strings.Cut(strings.TrimSpace(line), "partition=")
		at = append(at, n)
	}
	if got := strings.Join(at, " "); got != "1 3 5" {
		t.Errorf("told by %q:\n%s", got, &out)
	}
}

// A state that goes on is told again, with pauses that grow; one that comes again, at once.
func TestReporterTellsAgainWhatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := NewReporter(slog.New(slog.NewTextHandler(&out, nil)))
		goOn := func(seconds int) int {
			out.Reset()
			for range seconds {
				a.Changed("times", "seconds", slog.LevelWarn, "the wrong unit")
				time.Sleep(time.Second)
			}
			return strings.Count(out.String(), "the wrong unit")
		}
		if n := goOn(4 * 60); n != 4 { // at once, after 30 s, a minute, two
			t.Errorf("in four minutes it was told %d times", n)
		}
		a.Changed("times", "", slog.LevelInfo, "plausible again")
		if n := goOn(10); n != 1 {
			t.Errorf("when it came again it was told %d times", n)
		}
	})
}

// What may go on for days without being an error is told less and less often, and at once
// when it has ceased and comes again.
func TestReporterTellsLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := NewReporter(slog.New(slog.NewTextHandler(&out, nil)))
		run := func(seconds int) int {
			out.Reset()
			for range seconds {
				a.ThrottleMore("0", slog.LevelWarn, "a new epoch")
				time.Sleep(time.Second)
			}
			return strings.Count(out.String(), "a new epoch")
		}
		if n := run(30); n != 1 {
			t.Errorf("in half a minute, %d lines", n)
		}
		if n := run(24 * 3600); n < 25 || n > 32 || !strings.Contains(out.String(), "suppressed=3599") {
			t.Errorf("in a day, %d lines:\n%s", n, &out)
		}
		time.Sleep(2 * time.Hour)
		if n := run(1); n != 1 {
			t.Error("what came again was not told")
		}
	})
}

// What fails on a connection reaches us too. It is counted once.
func TestConnectionErrorsCountOnce(t *testing.T) {
	a := NewReporter(slog.New(slog.DiscardHandler))
	lost := fmt.Errorf("read: %w", io.EOF)
	connectionHook{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{ReadErr: lost})
	a.Warn("starting over", fmt.Errorf("end the transaction: %w", lost))
	connectionHook{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{ReadErr: kgo.ErrClientClosed})
	connectionHook{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{WriteErr: context.DeadlineExceeded})
	connectionHook{a}.OnBrokerE2E(kgo.BrokerMetadata{}, 0, kgo.BrokerE2E{})
	connectionHook{a}.OnBrokerConnect(kgo.BrokerMetadata{}, 0, nil, context.Canceled)
	a.Warn("fenced", kerr.ProducerFenced)
	if got, want := a.Snapshot(), (Counts{Network: 1, Broker: 1, Fencings: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// Two partitions that stand still for different reasons: each is told of.
func TestEachPartitionThatStandsStillIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		a := NewReporter(slog.New(slog.NewTextHandler(io.Writer(&b), nil)))
		for range 20 { // ten minutes
			a.Error("0", "a partition is suspended; trying it again every 30s", kerr.MessageTooLarge, "partition", 0)
			time.Sleep(5 * time.Second)
			a.Error("1", "a partition is suspended; trying it again every 30s", NewError(Broker, "too few partitions"), "partition", 1)
			time.Sleep(25 * time.Second)
		}
		if !strings.Contains(b.String(), "partition=1") {
			t.Errorf("in ten minutes, partition 1 was never told of")
		}
	})
}
