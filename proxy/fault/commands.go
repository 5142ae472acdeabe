package fault

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Commands writes command lines of Kafka's own tools for hints, complete enough to copy
// and run.
type Commands struct{ Config config.Config }

// CommandsFor returns the command lines for a configuration.
func CommandsFor(cfg config.Config) Commands { return Commands{cfg} }

// Line returns a command line of a tool, with the brokers to connect to.
func (t Commands) Line(tool string, args ...string) string {
	words := []string{tool, "--bootstrap-server", strings.Join(t.Config.Brokers, ",")}
	if t.Config.TLS || t.Config.SASLMechanism != "" {
		words = append(words, "--command-config", "admin.properties")
	}
	words = append(words, args...)
	for i, word := range words {
		words[i] = quoted(word)
	}
	return strings.Join(words, " ")
}

// Allow returns the command that allows us operations on a resource. resource is an option
// of kafka-acls: --topic, --group or --transactional-id.
func (t Commands) Allow(resource, name string, ops ...kadm.ACLOperation) string {
	args := []string{"--add", "--allow-principal", t.principal()}
	for _, op := range ops {
		args = append(args, "--operation", operation(op))
	}
	return t.Line("kafka-acls", append(args, resource, name)...)
}

// AllowTransactions returns the command that allows us transactions: as any instance of
// the group, because survivors end the transactions of dead instances. A repair is always
// the same instance.
func (t Commands) AllowTransactions() string {
	args := []string{"--add", "--allow-principal", t.principal(), "--operation", operation(kadm.OpWrite), "--operation", operation(kadm.OpDescribe)}
	if t.Config.Instance == RepairInstance {
		return t.Line("kafka-acls", append(args, "--transactional-id", t.Config.TransactionalID())...)
	}
	return t.Line("kafka-acls", append(args, "--resource-pattern-type", "prefixed", "--transactional-id", t.Config.Group+"/")...)
}

// principal is the principal under which the brokers know us.
func (t Commands) principal() string { return "User:" + cmp.Or(t.Config.Principal(), "NAME") }

// Create returns the command that creates a topic. With 0 replicas the brokers' default
// applies.
func (t Commands) Create(topic string, partitions int32, replicas int16, settings []Setting) string {
	args := []string{"--create", "--topic", topic, "--partitions", strconv.Itoa(int(partitions))}
	if replicas > 0 {
		args = append(args, "--replication-factor", strconv.Itoa(int(replicas)))
	}
	for _, s := range settings {
		args = append(args, "--config", s.Key+"="+s.Value)
	}
	return t.Line("kafka-topics", args...)
}

// Grow returns the command that gives a topic more partitions.
func (t Commands) Grow(topic string, partitions int32) string {
	return t.Line("kafka-topics", "--alter", "--topic", topic, "--partitions", strconv.Itoa(int(partitions)))
}

// Set returns the command that changes a setting of a topic.
func (t Commands) Set(topic, key, value string) string {
	return t.Line("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", key+"="+value)
}

// operation spells an operation as kafka-acls does: DescribeConfigs.
func operation(op kadm.ACLOperation) string {
	var b strings.Builder
	for word := range strings.SplitSeq(op.String(), "_") {
		b.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return b.String()
}

// quoted quotes a word for the shell where it has to be.
func quoted(word string) string {
	special := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,=@+%", r))
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Setting is a setting to create a topic with.
type Setting struct{ Key, Value string }

// RepairInstance is the instance name of every repair of a group, wherever it runs. So a
// new repair takes over at once from one that died, and two never work side by side.
const RepairInstance = "repair"
