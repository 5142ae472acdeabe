package fault

import (
	"fmt"
	"strconv"
	"time"
)

// OpenTransaction is a transaction of somebody else that holds a partition open: readers of
// committed records see nothing from its first record on until it ends.
type OpenTransaction struct {
	Topic     string
	Partition int32
	Output    bool // the topic is an output of ours; else it is a source
	Sibling   bool // an instance of our group left it open

	Offset int64     // of the first record that readers do not see: the last stable offset
	Behind int64     // offsets from there to the end of the log
	Seen   time.Time // when the partition was first seen to be held open

	ProducerID      int64     // -1: not known
	TransactionalID string    // "": not known
	Since           time.Time // when it began; zero: not known
	Unknown         error     // why it is not known whose it is; nil: it is, or nobody hides it
}

// String says who holds which partition open, since when, and what follows.
func (o OpenTransaction) String() string {
	behind := "1 offset is"
	if o.Behind != 1 {
		behind = fmt.Sprintf("%d offsets are", o.Behind)
	}
	effect := "nothing from offset %d on can be read until it ends, and %s behind it"
	if o.Output {
		effect = "readers of committed records see nothing from offset %d on until it ends, and %s behind it"
	}
	words := fmt.Sprintf("%s holds %s partition %d open %s: "+effect, o.who(), o.Topic, o.Partition, o.since(), o.Offset, behind)
	if o.Unknown != nil {
		words += fmt.Sprintf(" (cannot see whose it is: %v)", o.Unknown)
	}
	return words
}

// Until says what has to happen before readers go on.
func (o OpenTransaction) Until() string {
	return "until " + o.who() + " ends its transaction, open " + o.since()
}

func (o OpenTransaction) who() string {
	who := "another program"
	switch {
	case o.Sibling:
		who = "another instance of this group"
	case !o.Output:
		who = "a producer"
	}
	switch {
	case o.TransactionalID != "":
		return fmt.Sprintf("%s (transactional id %q)", who, o.TransactionalID)
	case o.ProducerID >= 0:
		return fmt.Sprintf("%s (producer id %d)", who, o.ProducerID)
	}
	return who
}

func (o OpenTransaction) since() string {
	if o.Since.IsZero() {
		return "since " + o.Seen.UTC().Format(time.RFC3339) + " or before"
	}
	return "since " + o.Since.UTC().Format(time.RFC3339)
}

// Cure says how to find the owner, and what ends the transaction.
func (o OpenTransaction) Cure(t Commands) string {
	topic, partition := o.Topic, strconv.Itoa(int(o.Partition))
	producers := t.Line("kafka-transactions", "describe-producers", "--topic", topic, "--partition", partition)
	abort := t.Line("kafka-transactions", "abort", "--topic", topic, "--partition", partition, "--start-offset", strconv.FormatInt(o.Offset, 10))
	if o.TransactionalID != "" {
		return "look at it: " + t.Line("kafka-transactions", "describe", "--transactional-id", o.TransactionalID) +
			"; stop its program, or start it again: then the transaction ends, by its own timeout at the latest; by hand, with the tools of Kafka 4.1: " +
			t.Line("kafka-transactions", "forceTerminateTransaction", "--transactionalId", o.TransactionalID)
	}
	return "find its producer: " + producers + "; the transactional ids of all producers: " + t.Line("kafka-transactions", "list") +
		"; stop that program, or start it again; if no program has it, end it: " + abort
}
