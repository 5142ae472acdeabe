package proxy

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

// class is what an error means to whoever runs Tidemark, and with that what is
// done about it:
//
//	broker   the brokers (or another server that was asked) answered, with an error: what
//	         was under way is undone
//	         and done again, or, where that can never work, the process ends
//	         with a hint
//	network  no answer came: asked again, with ever longer pauses
//	record   a single record is at fault: it goes to the late topic, or, where
//	         brokers refuse it, its partition stands still
type class int

const (
	noClass class = iota // no error, or one of our own making, such as a stop
	brokerClass
	networkClass
	recordClass
	classes
)

func (c class) String() string {
	return [...]string{"none", "broker", "network", "record"}[c]
}

var (
	// errAnswer says that an answer is not what the protocol promises.
	errAnswer = errors.New("the brokers' answer makes no sense")
	// errRefused says that a commit was undone for a reason that the client
	// keeps to itself: a refusal of the offsets, or of the heartbeat after.
	errRefused = errors.New("the group did not take the offsets")
	// errMarker says that the watermark in a record's header is not heeded.
	errMarker = errors.New("no usable watermark")
)

// classify tells the class of an error, however it is wrapped.
func classify(err error) class {
	answer, answered := errors.AsType[*kerr.Error](err)
	switch {
	case err == nil:
		return noClass
	case answered && aboutRecord(answer), errors.Is(err, timestamp.ErrInvalid), errors.Is(err, errMarker), errors.Is(err, emit.ErrNotRouted), errors.Is(err, kgo.ErrMaxDecompress):
		return recordClass
	case errors.As(err, new(*registry.RefusedError)), refusedToken(err):
		return brokerClass
	case answered, errors.Is(err, errAnswer), errors.Is(err, errRefused), errors.Is(err, errFew), errors.Is(err, errLostSchema), errors.As(err, new(*kgo.ErrDataLoss)):
		return brokerClass
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed), errors.Is(err, errVoid), errors.Is(err, errTopology):
		return noClass
	case errors.As(err, new(*Fault)) && !lineFailed(err):
		return noClass // a configuration that cannot work
	}
	return networkClass // what does not come from a broker came up on the way to one
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

// lineFailed reports whether a connection failed, or did not come about.
func lineFailed(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || untrusted(err) || outOfTime(err)
}

// outOfTime reports whether our own patience ended. The client's hooks do not
// tell of that.
func outOfTime(err error) bool {
	_, op := errors.AsType[*net.OpError](err) // its timeout claims to be ours
	return !op && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, kgo.ErrRecordRetries))
}
