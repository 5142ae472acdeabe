package fault

import (
	"fmt"
	"strconv"
	"strings"
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
func (o OpenTransaction) String() string { return DescribeTransactions([]OpenTransaction{o}) }

// ByOwner puts together what one transaction holds open of one topic, in the order of the first
// of each.
func ByOwner(all []OpenTransaction) (of [][]OpenTransaction) {
	type owner struct {
		topic, id     string
		producer      int64
		began, seen   time.Time
		output, other bool
	}
	places := map[owner]int{}
	for _, o := range all {
		k := owner{o.Topic, o.TransactionalID, o.ProducerID, o.Since, time.Time{}, o.Output, o.Sibling}
		if o.TransactionalID == "" && o.ProducerID < 0 || o.Unknown != nil {
			of = append(of, []OpenTransaction{o}) // nobody knows whether they have one owner
			continue
		}
		if o.Since.IsZero() {
			k.seen = o.Seen
		}
		i, known := places[k]
		if !known {
			i = len(of)
			places[k], of = i, append(of, nil)
		}
		of[i] = append(of[i], o)
	}
	return of
}

// DescribeTransactions says what one transaction holds open of one topic, since when, and what
// follows.
func DescribeTransactions(all []OpenTransaction) string {
	o, offsets := all[0], int64(0)
	var partitions []int32
	for _, of := range all {
		partitions, offsets = append(partitions, of.Partition), offsets+of.Behind
	}
	from := fmt.Sprintf("offset %d", o.Offset)
	if len(all) > 1 {
		from = "its first records"
	}
	behind := "1 offset is"
	if offsets != 1 {
		behind = fmt.Sprintf("%d offsets are", offsets)
	}
	effect := "nothing from %s on can be read until it ends, and %s behind it"
	if o.Output {
		effect = "readers of committed records see nothing from %s on until it ends, and %s behind it"
	}
	words := fmt.Sprintf("%s holds %s %s open %s: "+effect, o.who(), o.Topic, PartitionWords(partitions), o.since(), from, behind)
	if o.Unknown != nil {
		words += fmt.Sprintf(" (cannot see whose it is: %v)", o.Unknown)
	}
	return words
}

// PartitionWords names partitions of one topic: the first ones, if there are many.
func PartitionWords(all []int32) string {
	const most = 8
	if len(all) == 1 {
		return fmt.Sprintf("partition %d", all[0])
	}
	words := make([]string, 0, most)
	for _, p := range all[:min(len(all), most)] {
		words = append(words, strconv.Itoa(int(p)))
	}
	more := ""
	if n := len(all) - most; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return "partitions " + strings.Join(words, ", ") + more
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
