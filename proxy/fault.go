package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Fault is an error that Tidemark cannot overcome by itself. It knows how the
// process has to end and, in most cases, what mends it.
type Fault struct {
	Code   int    // exit code: 1 failed, 2 usage or configuration
	Err    error  // what was attempted, where, and what came of it
	Advice string // what mends it; may be empty
}

// Error returns what was attempted and what came of it, without the advice.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Hint says what mends it. It may be empty.
func (f *Fault) Hint() string { return f.Advice }

// ExitCode is that of a process which ends because of the fault.
func (f *Fault) ExitCode() int { return f.Code }

// usage returns a fault of how Tidemark was set up: to start it again as it is
// would be no use.
func usage(err error, hint string) *Fault { return &Fault{Code: 2, Err: err, Advice: hint} }

// failed returns a fault that came up on the way.
func failed(err error, hint string) *Fault { return &Fault{Code: 1, Err: err, Advice: hint} }

// Faults is several faults that were found together.
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

// ExitCode is the greatest of the faults': as long as one of them is a matter
// of configuration, to start again would be no use.
func (fs Faults) ExitCode() (code int) {
	for _, f := range fs {
		code = max(code, f.Code)
	}
	return code
}

// err returns nil for no fault, and a single one as itself.
func (fs Faults) err() error {
	switch len(fs) {
	case 0:
		return nil
	case 1:
		return fs[0]
	}
	return fs
}

// forbidden returns a fault if the brokers do not let us use the group or the
// transactional id, whichever request it was that they refused.
func forbidden(cfg config.Config, err error) *Fault {
	t, group, id := tools{cfg}, cfg.Group, cfg.TransactionalID()
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return usage(fmt.Errorf("use the group %q: we may not READ it: %w", group, err),
			"allow it: "+t.allow("--group", group, kadm.OpRead))
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return usage(fmt.Errorf("use the transactional id %q: we may not WRITE it: %w", id, err),
			"allow it: "+t.allowTransactions())
	}
	return nil
}

// forGood returns a fault if an error, wherever it came up, says that Tidemark
// cannot work as it is set up.
func forGood(cfg config.Config, err error) *Fault {
	t := tools{cfg}
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		topic := cfg.Topics[0]
		return usage(err, "allow it, for each of the topics: "+t.allow("--topic", topic, kadm.OpRead, kadm.OpDescribe)+
			"; and "+t.allow("--topic", cfg.OrderedTopic(topic), kadm.OpWrite, kadm.OpDescribe, kadm.OpRead)+"; and the same for "+cfg.LateTopic(topic))
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return usage(err, "allow it: "+t.line("kafka-acls", "--add", "--allow-principal", t.principal(), "--operation", operation(kadm.OpIdempotentWrite), "--cluster"))
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return usage(fmt.Errorf("join group %q: %w", cfg.Group, err),
			"the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms limit it: change TIDEMARK_SESSION_TIMEOUT")
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		return usage(fmt.Errorf("commit in group %q: %w", cfg.Group, err),
			"what is to be remembered takes up to 4000 bytes in an offset's metadata: raise offset.metadata.max.bytes of the brokers, to its default of 4096")
	case errors.Is(err, kerr.InvalidGroupID):
		return usage(fmt.Errorf("join group %q: %w", cfg.Group, err), "change TIDEMARK_GROUP")
	}
	return forbidden(cfg, err)
}

// uncommittable returns a fault if brokers do not take offsets of a source because we
// may not read it.
func (s *session) uncommittable(err error) error {
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return err
	}
	var lines []string
	for _, topic := range s.cfg.Topics {
		lines = append(lines, tools{s.cfg}.allow("--topic", topic, kadm.OpRead, kadm.OpDescribe))
	}
	return usage(fmt.Errorf("%w: we may not READ the source", err), "allow it: "+strings.Join(lines, "; "))
}

// denied reports that brokers refused what we are not allowed to do.
func denied(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) ||
		errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}

// tools writes command lines of Kafka's own tools, for hints: complete, so
// that they can be copied as they stand.
type tools struct{ cfg config.Config }

func (t tools) line(tool string, args ...string) string {
	words := []string{tool, "--bootstrap-server", strings.Join(t.cfg.Brokers, ",")}
	if t.cfg.TLS || t.cfg.SASLMechanism != "" {
		words = append(words, "--command-config", "admin.properties")
	}
	words = append(words, args...)
	for i, word := range words {
		words[i] = quoted(word)
	}
	return strings.Join(words, " ")
}

// allow returns the command that permits us operations on a resource, which is
// an option of kafka-acls: --topic, --group or --transactional-id.
func (t tools) allow(resource, name string, ops ...kadm.ACLOperation) string {
	args := []string{"--add", "--allow-principal", t.principal()}
	for _, op := range ops {
		args = append(args, "--operation", operation(op))
	}
	return t.line("kafka-acls", append(args, resource, name)...)
}

// allowTransactions returns the command that permits us transactions: as any
// instance of the group, for whoever takes over ends those of the dead. The repair
// is always the same instance.
func (t tools) allowTransactions() string {
	args := []string{"--add", "--allow-principal", t.principal(), "--operation", operation(kadm.OpWrite), "--operation", operation(kadm.OpDescribe)}
	if t.cfg.Instance == repairInstance {
		return t.line("kafka-acls", append(args, "--transactional-id", t.cfg.TransactionalID())...)
	}
	return t.line("kafka-acls", append(args, "--resource-pattern-type", "prefixed", "--transactional-id", t.cfg.Group+"/")...)
}

// principal is who the brokers take us for.
func (t tools) principal() string { return "User:" + cmp.Or(t.cfg.Principal(), "NAME") }

// create returns the command that makes a topic. A count of 0 leaves the
// replication to the brokers.
func (t tools) create(topic string, partitions int32, replicas int16, settings []setting) string {
	args := []string{"--create", "--topic", topic, "--partitions", strconv.Itoa(int(partitions))}
	if replicas > 0 {
		args = append(args, "--replication-factor", strconv.Itoa(int(replicas)))
	}
	for _, s := range settings {
		args = append(args, "--config", s.key+"="+s.value)
	}
	return t.line("kafka-topics", args...)
}

// grow returns the command that gives a topic more partitions.
func (t tools) grow(topic string, partitions int32) string {
	return t.line("kafka-topics", "--alter", "--topic", topic, "--partitions", strconv.Itoa(int(partitions)))
}

// set returns the command that changes a setting of a topic.
func (t tools) set(topic, key, value string) string {
	return t.line("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", key+"="+value)
}

// operation spells an operation as kafka-acls does: DescribeConfigs.
func operation(op kadm.ACLOperation) string {
	var b strings.Builder
	for word := range strings.SplitSeq(op.String(), "_") {
		b.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return b.String()
}

// quoted returns a word as a shell takes it for one.
func quoted(word string) string {
	special := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,=@+%", r))
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Denied returns what allows an operation that brokers refused to somebody who only
// reads, and nothing for any other error.
func Denied(cfg config.Config, err error) string {
	t := tools{cfg}
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		topic := cfg.Topics[0]
		var lines []string
		for _, name := range []string{topic, cfg.OrderedTopic(topic), cfg.LateTopic(topic)} {
			lines = append(lines, t.allow("--topic", name, kadm.OpRead))
		}
		return "allow it, for each of the topics: " + strings.Join(lines, "; ")
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return "allow it: " + t.allow("--group", cfg.Group, kadm.OpDescribe)
	}
	return discord(err)
}
