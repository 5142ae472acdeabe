package fault

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Fault is an error that Tidemark cannot recover from by itself. It carries the exit code
// of the process and, in most cases, how to fix it.
type Fault struct {
	Code   int    // exit code: 1 failed, 2 usage or configuration
	Err    error  // what was attempted, where, and how it failed
	Advice string // how to fix it; may be empty
}

// Error returns what was attempted and how it failed, without the advice.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Hint says how to fix it. It may be empty.
func (f *Fault) Hint() string { return f.Advice }

// ExitCode is that of a process which ends because of the fault.
func (f *Fault) ExitCode() int { return f.Code }

// Usage returns a fault of the setup: Tidemark would fail again if restarted unchanged.
func Usage(err error, hint string) *Fault { return &Fault{Code: 2, Err: err, Advice: hint} }

// Failed returns a fault that occurred at run time.
func Failed(err error, hint string) *Fault { return &Fault{Code: 1, Err: err, Advice: hint} }

// Faults are several faults that were found together.
type Faults []*Fault

// Error returns a line for every fault, each followed by its hint.
func (fs Faults) Error() string {
	var lines []string
	for _, f := range fs {
		lines = append(lines, f.Error())
		if f.Advice != "" {
			lines = append(lines, "hint: "+f.Advice)
		}
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults one by one.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// ExitCode is the highest code of the faults: while one of them is a matter of
// configuration, a restart does not help.
func (fs Faults) ExitCode() (code int) {
	for _, f := range fs {
		code = max(code, f.Code)
	}
	return code
}

// Err returns nil for no fault, and a single one as itself.
func (fs Faults) Err() error {
	switch len(fs) {
	case 0:
		return nil
	case 1:
		return fs[0]
	}
	return fs
}

// Forbidden returns a fault if the brokers do not allow us to use the group or the
// transactional id, whichever request they refused.
func Forbidden(cfg config.Config, err error) *Fault {
	t, group, id := CommandsFor(cfg), cfg.Group, cfg.TransactionalID()
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return Usage(fmt.Errorf("use the group %q: not allowed to READ it: %w", group, err),
			"allow it: "+t.Allow("--group", group, kadm.OpRead))
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return Usage(fmt.Errorf("use the transactional id %q: not allowed to WRITE it: %w", id, err),
			"allow it: "+t.AllowTransactions())
	}
	return nil
}

// Permanent returns a fault if an error, wherever it occurred, says that Tidemark cannot
// work with its present setup.
func Permanent(cfg config.Config, err error) *Fault {
	t := CommandsFor(cfg)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		topic := cfg.Topics[0]
		return Usage(err, "allow it, for each of the topics: "+t.Allow("--topic", topic, kadm.OpRead, kadm.OpDescribe)+
			"; and "+t.Allow("--topic", cfg.OrderedTopic(topic), kadm.OpWrite, kadm.OpDescribe, kadm.OpRead)+"; and the same for "+cfg.LateTopic(topic))
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return Usage(err, "allow it: "+t.Line("kafka-acls", "--add", "--allow-principal", t.principal(), "--operation", operation(kadm.OpIdempotentWrite), "--cluster"))
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return Usage(fmt.Errorf("join group %q: %w", cfg.Group, err),
			"set TIDEMARK_SESSION_TIMEOUT within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms")
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		return Usage(fmt.Errorf("commit in group %q: %w", cfg.Group, err),
			"Tidemark keeps up to 4000 bytes in the metadata of an offset: raise the brokers' offset.metadata.max.bytes to its default of 4096")
	case errors.Is(err, kerr.InvalidGroupID):
		return Usage(fmt.Errorf("join group %q: %w", cfg.Group, err), "change TIDEMARK_GROUP")
	}
	return Forbidden(cfg, err)
}

// Uncommittable returns a fault if brokers refuse the offsets of a source because we are
// not allowed to read it, and any other error as it is.
func Uncommittable(cfg config.Config, err error) error {
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return err
	}
	var lines []string
	for _, topic := range cfg.Topics {
		lines = append(lines, CommandsFor(cfg).Allow("--topic", topic, kadm.OpRead, kadm.OpDescribe))
	}
	return Usage(fmt.Errorf("%w: not allowed to READ the source", err), "allow it: "+strings.Join(lines, "; "))
}

// Denied reports whether brokers refused something for lack of a permission.
func Denied(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) ||
		errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}

// ReadHint returns how to allow a read that brokers refused, how to fix a failed handshake,
// or what to check where no broker can be reached; empty for any other error.
func ReadHint(cfg config.Config, err error) string {
	t := CommandsFor(cfg)
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		topic := cfg.Topics[0]
		var lines []string
		for _, name := range []string{topic, cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
			lines = append(lines, t.Allow("--topic", name, kadm.OpRead))
		}
		return "allow it, for each of the topics: " + strings.Join(lines, "; ")
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return "allow it: " + t.Allow("--group", cfg.Group, kadm.OpDescribe)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return "check TIDEMARK_TOPICS, TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX, and where TIDEMARK_BROKERS leads; `tidemark run` creates the outputs"
	}
	return cmp.Or(HandshakeHint(err), ReachHint(err))
}
