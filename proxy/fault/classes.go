package fault

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/registry"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// Class is what an error means to an operator, and how Tidemark reacts to it:
//
//	broker   the brokers, or another server, answered with an error: Tidemark aborts and
//	         retries or, where retrying cannot help, exits with a hint
//	network  no answer came: Tidemark retries, with growing pauses
//	record   a single record is at fault: it goes to the late topic or, where brokers
//	         refuse it, its partition is suspended
type Class int

const (
	None Class = iota // no error, or one that we caused, such as a stop
	Broker
	Network
	Record
	classes
)

func (c Class) String() string {
	return [...]string{"none", "broker", "network", "record"}[c]
}

var (
	// ErrBadAnswer says that an answer violates the protocol.
	ErrBadAnswer = NewError(Broker, "the brokers' answer violates the protocol")
	// ErrOffsetsRefused says that a commit was aborted for a reason that the client hides:
	// the coordinator refused the offsets, or the heartbeat after them.
	ErrOffsetsRefused = NewError(Broker, "the group coordinator refused the offsets or a heartbeat")
	// ErrNoWatermark says that the watermark in a record's header is ignored.
	ErrNoWatermark = NewError(Record, "no usable watermark")
)

// classedError is an error of our own that knows its class.
type classedError struct {
	class Class
	text  string
}

// NewError returns a sentinel error of a class.
func NewError(c Class, text string) error { return &classedError{c, text} }

func (e *classedError) Error() string { return e.text }

// Classify returns the class of an error, however it is wrapped.
func Classify(err error) Class {
	answer, answered := errors.AsType[*kerr.Error](err)
	own, classed := errors.AsType[*classedError](err)
	switch {
	case err == nil:
		return None
	case answered && aboutRecord(answer), errors.Is(err, timestamp.ErrInvalid), errors.Is(err, emit.ErrNotRouted), errors.Is(err, kgo.ErrMaxDecompress):
		return Record
	case errors.As(err, new(*registry.RefusedError)), refusedToken(err):
		return Broker
	case answered, errors.As(err, new(*kgo.ErrDataLoss)):
		return Broker
	case classed:
		return own.class
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
		return None
	case errors.As(err, new(*Fault)) && !connectionFailed(err):
		return None // a configuration that cannot work
	}
	return Network // no broker answered, so it occurred on the way to one
}

// aboutRecord reports whether the brokers refused the record itself, whenever and however
// it is sent.
func aboutRecord(answer *kerr.Error) bool {
	switch answer {
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTimestamp, kerr.InvalidRecord:
		return true
	}
	return false
}

// connectionFailed reports whether a connection failed or could not be opened.
func connectionFailed(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || untrusted(err) || TimedOut(err)
}

// TimedOut reports whether one of our own timeouts ended the wait. The client's hooks do
// not report those.
func TimedOut(err error) bool {
	_, op := errors.AsType[*net.OpError](err) // its timeout claims to be ours
	return !op && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, kgo.ErrRecordRetries))
}

// IsFenced reports whether another process has taken our producer id.
func IsFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// IsExpired reports whether the coordinator no longer has our producer id under the
// transactional id. It has expired then: another process that takes the id over gets the
// same producer id with a higher epoch.
func IsExpired(err error) bool { return errors.Is(err, kerr.InvalidProducerIDMapping) }
