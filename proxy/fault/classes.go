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

// Class is what an error means to whoever runs Tidemark, and with that what is
// done about it:
//
//	broker   the brokers (or another server that was asked) answered, with an error: what
//	         was under way is undone
//	         and done again, or, where that can never work, the process ends
//	         with a hint
//	network  no answer came: asked again, with ever longer pauses
//	record   a single record is at fault: it goes to the late topic, or, where
//	         brokers refuse it, its partition stands still
type Class int

const (
	None Class = iota // no error, or one of our own making, such as a stop
	Broker
	Network
	Record
	classes
)

func (c Class) String() string {
	return [...]string{"none", "broker", "network", "record"}[c]
}

var (
	// ErrBadAnswer says that an answer is not what the protocol promises.
	ErrBadAnswer = NewError(Broker, "the brokers' answer makes no sense")
	// ErrOffsetsRefused says that a commit was undone for a reason that the client
	// keeps to itself: a refusal of the offsets, or of the heartbeat after.
	ErrOffsetsRefused = NewError(Broker, "the group did not take the offsets")
	// ErrNoWatermark says that the watermark in a record's header is not heeded.
	ErrNoWatermark = NewError(Record, "no usable watermark")
)

// classedError is an error of our own that says which class it is of.
type classedError struct {
	class Class
	text  string
}

// NewError returns an error to compare with, of a class.
func NewError(c Class, text string) error { return &classedError{c, text} }

func (e *classedError) Error() string { return e.text }

// Classify tells the class of an error, however it is wrapped.
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
	return Network // what does not come from a broker came up on the way to one
}

// aboutRecord reports whether the brokers found fault with the record and not
// with how or when it came.
func aboutRecord(answer *kerr.Error) bool {
	switch answer {
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTimestamp, kerr.InvalidRecord:
		return true
	}
	return false
}

// connectionFailed reports whether a connection failed, or did not come about.
func connectionFailed(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || untrusted(err) || TimedOut(err)
}

// TimedOut reports whether our own patience ended. The client's hooks do not
// tell of that.
func TimedOut(err error) bool {
	_, op := errors.AsType[*net.OpError](err) // its timeout claims to be ours
	return !op && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, kgo.ErrRecordRetries))
}

// IsFenced reports that somebody else has taken our producer id.
func IsFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// IsExpired reports that the coordinator does not have our producer id under the
// transactional id. That is what it answers once the id has expired, for who takes an
// id from another gets the same producer id with a higher epoch.
func IsExpired(err error) bool { return errors.Is(err, kerr.InvalidProducerIDMapping) }
