package preflight

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
)

func TestKafkaPreflightCreatesOutputs(t *testing.T) {
	f := kafkatest.NewAny(t)
	names := f.Topics(2)
	plain, tuned := names[0], names[1]
	f.Create(plain, 1, nil)
	f.Create(tuned, 3, map[string]string{
		"retention.ms": "86400000", "retention.bytes": "5000000", "segment.bytes": "2000000", "max.message.bytes": "3000000",
		"compression.type": "gzip", "min.insync.replicas": "1", "message.timestamp.before.max.ms": "7200000", "message.timestamp.after.max.ms": "60000",
	})
	found, err := preflightOf(f, names)
	if err != nil || len(found) != 2 {
		t.Fatalf("%v, %v", found, err)
	}
	if w := f.Warnings(); w != "" {
		t.Error(w)
	}
	got := found[tuned]
	if want := (Topic{tuned, got.ID, 3, 3, tuned + ".ordered", tuned + ".late", 3_001_024, 3_001_024, 3_001_024}); got != want || got.ID == [16]byte{} || got.ID == found[plain].ID {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, out := range []string{got.Ordered, got.Late} {
		made := settings(f.Settings(out))
		for key, want := range map[string]string{
			"cleanup.policy": "delete", "message.timestamp.type": "CreateTime", "max.message.bytes": "3001024",
			"retention.ms": "86400000", "retention.bytes": "5000000", "segment.bytes": "2000000", "compression.type": "gzip", "min.insync.replicas": "1",
			"message.timestamp.before.max.ms": "9223372036854775807", "message.timestamp.after.max.ms": "9223372036854775807",
		} {
			if have := made.text(key); have != want {
				t.Errorf("%s has %s=%s, want %s", out, key, have, want)
			}
		}
		if n := f.Partitions(out); n != 3 {
			t.Errorf("%s has %d partitions", out, n)
		}
	}
	for key, c := range f.Settings(plain + ".late") {
		written := []string{"cleanup.policy", "message.timestamp.type", "max.message.bytes", "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"}
		if c.Source == kmsg.ConfigSourceDynamicTopicConfig && !slices.Contains(written, key) {
			t.Errorf("%s=%s is pinned, and the source leaves it to the brokers", key, c.MaybeValue())
		}
	}

	// Once more: there is nothing left to do, and nothing to be said.
	again, err := preflightOf(f, names)
	if err != nil || !maps.Equal(again, found) || f.Log.String() != "" {
		t.Errorf("again: %v, %v, log: %s", again, err, &f.Log)
	}
}

// A record is older when it is copied than it was when it came, and the source
// may have become stricter since. Its copy must be let in all the same.
func TestKafkaPreflightOutputsTakeWhatTheSourceTook(t *testing.T) {
	f := kafkatest.NewAny(t)
	name := f.Topics(1)[0]
	f.Create(name, 1, map[string]string{fault.TimestampBefore: "1000", fault.TimestampAfter: "1000"})
	if _, err := preflightOf(f, []string{name}); err != nil {
		t.Fatal(err)
	}
	connection, err := f.Config().ClientOpts(func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(connection, kgo.RecordRetries(5))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, age := range []time.Duration{time.Hour, -2 * time.Hour, 20_000 * time.Hour} {
		r := &kgo.Record{Topic: name + ".late", Timestamp: time.Now().Add(-age)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Errorf("a record of %v ago: %v", age, err)
		}
	}
}

func TestKafkaPreflightGrowsOutputs(t *testing.T) {
	f := kafkatest.NewAny(t)
	name := f.Topics(1)[0]
	f.Create(name, 2, nil)
	if _, err := preflightOf(f, []string{name}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Admin.UpdatePartitions(t.Context(), 5, name); err != nil {
		t.Fatal(err)
	}
	for f.Partitions(name) != 5 && t.Context().Err() == nil { //nolint:revive // until the brokers show it
	}
	topics, err := preflightOf(f, []string{name})
	if err != nil || topics[name].Partitions != 5 {
		t.Fatalf("%v, %v", topics, err)
	}
	kafkatest.Contains(t, f.Log.String(), "grow "+name+".ordered to 5 partitions", "grow "+name+".late to 5 partitions")
	if n, m := f.Partitions(name+".ordered"), f.Partitions(name+".late"); n != 5 || m != 5 {
		t.Errorf("outputs have %d and %d partitions", n, m)
	}
}

func TestKafkaPreflightRefusesMorePartitions(t *testing.T) {
	f := kafkatest.NewAny(t)
	name := f.Topics(1)[0]
	f.Create(name, 2, nil)
	f.Create(name+".late", 3, map[string]string{fault.MaxMessageBytes: "2000000"})
	_, err := preflightOf(f, []string{name})
	kafkatest.WantUsage(t, err, "write to the late output "+name+".late: it has 3 partitions, more than the 2 of "+name, "delete "+name+".late", "TIDEMARK_LATE_SUFFIX")
	if n := f.Partitions(name + ".ordered"); n != 0 {
		t.Error("the other output was created in spite of the fault")
	}
}

func TestKafkaPreflightMissesSource(t *testing.T) {
	f := kafkatest.NewAny(t)
	names := f.Topics(2)
	f.Create(names[0], 1, nil)
	gone := names[0] + "s"
	_, err := preflightOf(f, []string{gone})
	kafkatest.WantUsage(t, err, "look up the source topic "+gone+": it does not exist", "did you mean "+names[0], "kafka-topics --bootstrap-server", "--create --topic "+gone)
	if n := f.Partitions(gone); n != 0 {
		t.Error("asking for the source has created it")
	}
	_, err = preflightOf(f, []string{"zyx-wvu-tsr-qpo-nml-kji"})
	kafkatest.WantUsage(t, err, "it does not exist")
	if f := err.(*fault.Fault); strings.Contains(f.Advice, "did you mean") {
		t.Error(f.Advice)
	}
}

func TestPreflightRefusesInternal(t *testing.T) {
	f := kafkatest.NewFake(t)
	f.Create("__things", 1, map[string]string{"kfake.is_internal": "true"})
	_, err := preflightOf(f, []string{"__things"})
	kafkatest.WantUsage(t, err, "read the source topic __things: it is internal to Kafka")
}

func TestPreflightRefusesOutputs(t *testing.T) {
	for _, test := range []struct {
		topics, source string
		env            []string
		fault          string
	}{
		{"raw raw.ordered", "raw.ordered", nil, "raw.ordered: it is an output of raw"},
		{"raw raw.late", "raw.late", nil, "raw.late: it is an output of raw"},
		{"raw.ordered", "raw.ordered", nil, ""}, // only named like one
		{"raw raw-sorted", "raw-sorted", nil, ""},
		{"raw raw-sorted", "raw-sorted", []string{"TIDEMARK_ORDERED_SUFFIX=-sorted"}, "raw-sorted: it is an output of raw"},
		{"raw raw.ordered", "raw.ordered", []string{"TIDEMARK_ORDERED_SUFFIX=-sorted"}, ""},
	} {
		f := kafkatest.NewFake(t, kfake.SeedTopics(1, strings.Fields(test.topics)...))
		switch _, err := preflightOf(f, []string{test.source}, test.env...); {
		case test.fault != "":
			kafkatest.WantUsage(t, err, test.fault, "put raw in TIDEMARK_TOPICS")
		case err != nil:
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestPreflightSettings(t *testing.T) {
	type m = map[string]string
	const big = "2000000" // max.message.bytes with room for headers
	out := func(key, value string) m { return m{fault.MaxMessageBytes: big, key: value} }
	for _, test := range []struct {
		name           string
		source, output m // no output: it is missing
		env            string
		fault, warning []string
	}{
		{name: "nothing special", output: m{fault.MaxMessageBytes: big}},

		{name: "compacted source", source: m{fault.CleanupPolicy: "compact"}, fault: []string{
			"create the ordered output raw.ordered: its source is compacted", "choose how long to keep records",
			"kafka-topics --bootstrap-server", "--create --topic raw.ordered --partitions 2 --replication-factor 1 --config cleanup.policy=delete", "--config retention.ms=-1",
		}},
		{name: "compacted source, outputs made by hand", source: m{fault.CleanupPolicy: "compact"}, output: out(fault.RetentionMs, "1000000")},
		{name: "source compacted and deleted", source: m{fault.CleanupPolicy: "compact, delete"}, warning: []string{"compacted", "topic=raw\n"}},
		{name: "compacted output", output: out(fault.CleanupPolicy, "compact"), fault: []string{
			"write to the ordered output raw.ordered: it is compacted", "kafka-configs --bootstrap-server", "--alter --entity-type topics --entity-name raw.ordered --add-config cleanup.policy=delete",
		}},
		{name: "output compacted and deleted", output: out(fault.CleanupPolicy, "compact,delete"), fault: []string{"it is compacted"}},

		{name: "timestamps replaced", output: out(fault.TimestampType, fault.LogAppendTime), fault: []string{
			"write to the ordered output raw.ordered: its message.timestamp.type is LogAppendTime", "--entity-name raw.ordered --add-config message.timestamp.type=CreateTime",
		}},
		{name: "time of arrival only", source: m{fault.TimestampType: fault.LogAppendTime}, env: "TIDEMARK_EVENT_TIME=timestamp", fault: []string{
			"source topic raw", "LogAppendTime", "--entity-name raw --add-config message.timestamp.type=CreateTime", "TIDEMARK_EVENT_TIME=header:",
		}},
		{name: "time of arrival after header", source: m{fault.TimestampType: fault.LogAppendTime}, warning: []string{"ordered by arrival time", "topic=raw ", "kafka-configs"}},
		{name: "time of arrival unused", source: m{fault.TimestampType: fault.LogAppendTime}, env: "TIDEMARK_EVENT_TIME=header:t"},

		{name: "no room for headers", output: m{fault.MaxMessageBytes: "1049611"}, warning: []string{"max.message.bytes is too small", "raise it from 1049611: ", "topic=raw.ordered", "--add-config max.message.bytes=1049612"}},
		{name: "just room for headers", output: m{fault.MaxMessageBytes: "1049612"}},
		{name: "largest size there is", source: m{fault.MaxMessageBytes: "2147483647"}, output: m{fault.MaxMessageBytes: "2147483647"}},

		{name: "kept for less time", source: m{fault.RetentionMs: "100000000"}, output: out(fault.RetentionMs, "99999999"), warning: []string{"less time than its source", "--add-config retention.ms=100000000"}},
		{name: "kept as long", source: m{fault.RetentionMs: "100000000"}, output: out(fault.RetentionMs, "100000000")},
		{name: "source keeps for ever", source: m{fault.RetentionMs: "-1"}, output: m{fault.MaxMessageBytes: big}, warning: []string{"less time than its source", "--add-config retention.ms=-1"}},
		{name: "source never deletes", source: m{fault.CleanupPolicy: ""}, output: m{fault.MaxMessageBytes: big}, warning: []string{"less time than its source", "--add-config retention.ms=-1"}},
		{name: "kept for ever", output: out(fault.RetentionMs, "-1")},
		{name: "fewer bytes", output: out(fault.RetentionBytes, "5000"), warning: []string{"fewer bytes than its source", "--add-config retention.bytes=-1"}},

		{name: "gone at once", output: out(fault.RetentionMs, "9999"), warning: []string{"keeps records for 9.999s, less than the 10s for which they may be held", "topic=raw.ordered"}},
		{name: "gone at once when created", source: m{fault.RetentionMs: "9999"}, warning: []string{"keeps records for 9.999s", "topic=raw.ordered"}},
		{name: "just not gone", source: m{fault.RetentionMs: "10000"}, output: out(fault.RetentionMs, "10000")},

		{name: "older than allowed", source: m{fault.TimestampBefore: "5000"}, output: out(fault.TimestampBefore, "604804999"), warning: []string{"timestamps in the past", "--add-config message.timestamp.before.max.ms=604805000"}},
		{name: "as old as can be", source: m{fault.TimestampBefore: "5000"}, output: out(fault.TimestampBefore, "604805000")},
		{name: "no age too old for the source", source: m{fault.TimestampBefore: "9223372036854775807"}, output: out(fault.TimestampBefore, "604805000"), warning: []string{"message.timestamp.before.max.ms=9223372036854775807"}},
		{name: "older than allowed, before Kafka 4", source: m{fault.TimestampEither: "5000"}, output: out(fault.TimestampEither, "5000"), warning: []string{"message.timestamp.difference.max.ms=604805000"}},
		{name: "stamped on arrival", source: m{fault.TimestampBefore: "9223372036854775807", fault.TimestampAfter: "9000", fault.TimestampType: fault.LogAppendTime}, env: "TIDEMARK_EVENT_TIME=header:t", output: m{fault.MaxMessageBytes: big, fault.TimestampBefore: "604800000", fault.TimestampAfter: "1000"}},
		{name: "further ahead than allowed", source: m{fault.TimestampAfter: "5000"}, output: out(fault.TimestampAfter, "4999"), warning: []string{"timestamps in the future", "--add-config message.timestamp.after.max.ms=5000"}},
		{name: "as far ahead", source: m{fault.TimestampAfter: "5000"}, output: out(fault.TimestampAfter, "5000")},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := kafkatest.NewFake(t)
			f.Create("raw", 2, test.source)
			if test.output != nil {
				f.Create("raw.ordered", 2, test.output)
				f.Create("raw.late", 2, m{fault.MaxMessageBytes: "2147483647", fault.RetentionMs: "-1"})
			}
			_, err := preflightOf(f, []string{"raw"}, strings.Fields(test.env)...)
			if test.fault != nil {
				kafkatest.WantUsage(t, err, test.fault...)
			} else if err != nil {
				t.Error(err)
			}
			if test.warning != nil {
				kafkatest.Contains(t, f.Warnings(), test.warning...)
			} else if w := f.Warnings(); w != "" {
				t.Error(w)
			}
		})
	}
}

func TestNewSettings(t *testing.T) {
	set := func(text string) settings {
		s := settings{}
		for _, word := range strings.Fields(text) {
			key, value, _ := strings.Cut(word, "=")
			source := kmsg.ConfigSourceDynamicTopicConfig
			if strings.HasPrefix(key, "~") {
				source = kmsg.ConfigSourceStaticBrokerConfig
			}
			key = strings.TrimPrefix(key, "~")
			s[key] = kadm.Config{Key: key, Value: &value, Source: source}
		}
		return s
	}
	for _, test := range []struct{ source, want string }{
		{"~cleanup.policy=delete ~retention.ms=5", "cleanup.policy=delete message.timestamp.type=CreateTime"},
		{"~cleanup.policy=delete retention.ms=5 remote.storage.enable=true", "cleanup.policy=delete message.timestamp.type=CreateTime remote.storage.enable=true retention.ms=5"},
		{"cleanup.policy= retention.ms=5", "cleanup.policy=delete message.timestamp.type=CreateTime retention.bytes=-1 retention.ms=-1"},
		{"cleanup.policy=delete ~max.message.bytes=2147483000", "cleanup.policy=delete max.message.bytes=2147483647 message.timestamp.type=CreateTime"},
		{"cleanup.policy=delete ~message.timestamp.difference.max.ms=7", "cleanup.policy=delete message.timestamp.difference.max.ms=9223372036854775807 message.timestamp.type=CreateTime"},
		{"cleanup.policy=delete message.timestamp.type=LogAppendTime min.compaction.lag.ms=3", "cleanup.policy=delete message.timestamp.type=CreateTime"},
	} {
		var got []string
		for _, s := range newSettings(set(test.source), HeaderRoom) {
			got = append(got, s.Key+"="+s.Value)
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s gives\n%s\nwant\n%s", test.source, got, test.want)
		}
	}
	if got := fmt.Sprint(newSettings(nil, HeaderRoom)); got != "[{cleanup.policy delete} {message.timestamp.type CreateTime}]" {
		t.Errorf("a hidden source gives %s", got)
	}
}

// The brokers may refuse a topic when asked whether they would make it, or only
// when they are to make it.
func TestPreflightCreationRefused(t *testing.T) {
	for _, dry := range []bool{true, false} {
		f := kafkatest.NewFake(t, kfake.SeedTopics(1, "raw"))
		f.Cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "raw.late", Err: kerr.PolicyViolation, Count: -1, When: func(req kmsg.Request) bool {
			return req.(*kmsg.CreateTopicsRequest).ValidateOnly == dry
		}})
		_, err := preflightOf(f, []string{"raw"})
		kafkatest.WantUsage(t, err, "create raw.late: POLICY_VIOLATION", "kafka-topics", "--create --topic raw.late")
		if made := f.Partitions("raw.ordered") > 0; made == dry {
			t.Errorf("refused with dry=%v, and the other output is there: %v", dry, made)
		}
	}
}

// Brokers before Kafka 2.3 do not say what is allowed.
func TestViewLacks(t *testing.T) {
	silent, reader := new(view), new(view)
	reader.AuthorizedOperations = []kadm.ACLOperation{kadm.OpRead, kadm.OpDescribe}
	if silent.lacks(kadm.OpRead) || reader.lacks(kadm.OpRead) || !reader.lacks(kadm.OpWrite) {
		t.Error("want an operation to be lacking only if others are allowed")
	}
}

// A topic that another instance has just made is not shown by every broker.
// Meanwhile it is neither missed nor made a second time.
func TestPreflightLateToSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		cluster := start(t, network)
		for _, topic := range []string{"raw.ordered", "raw.late"} {
			if err := cluster.CreateTopic(topic, 2, map[string]string{fault.MaxMessageBytes: "2000000"}); err != nil {
				t.Fatal(err)
			}
		}
		unseen := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "raw.late", Err: kerr.UnknownTopicOrPartition, Count: 3})
		f, adm := virtual(t, network)
		topics := preflown(t, f, adm)
		if unseen.Hits() != 3 || topics["raw"].Partitions != 2 || f.Log.String() != "" {
			t.Errorf("%v, unseen %d times, log: %s", topics, unseen.Hits(), &f.Log)
		}
	})
}

// Of an output that was grown meanwhile the brokers say that it is no growth.
func TestPreflightGrownMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		cluster := start(t, network)
		for _, topic := range []string{"raw.ordered", "raw.late"} {
			if err := cluster.CreateTopic(topic, 1, map[string]string{fault.MaxMessageBytes: "2000000"}); err != nil {
				t.Fatal(err)
			}
		}
		faster := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Topic: "raw.late", Err: kerr.InvalidPartitions, Count: 4})
		f, adm := virtual(t, network)
		topics := preflown(t, f, adm)
		if faster.Hits() != 4 || topics["raw"].Partitions != 2 || f.Warnings() != "" {
			t.Errorf("%v, slower %d times, log: %s", topics, faster.Hits(), &f.Log)
		}
	})
}

// preflown makes a preflight that has to succeed.
func preflown(t *testing.T, f *kafkatest.Fixture, adm *kadm.Client) map[string]Topic {
	t.Helper()
	cfg := f.Config()
	topics, err := checkWith(context.Background(), adm, cfg, cfg.EventTime, fault.NewReporter(f.Logger()), new(Cluster))
	if err != nil {
		t.Fatal(err)
	}
	return topics
}

// A source behind the timestamp is asked only for records that have none, which is hardly
// what somebody means who names it.
func TestPreflightSourceBehindTimestamp(t *testing.T) {
	f := kafkatest.NewAny(t)
	name := f.Topics(1)[0]
	f.Create(name, 1, nil)
	for spec, want := range map[string]bool{
		"timestamp,json:created_at:unix-us":          true,
		"header:a,timestamp,json:created_at:unix-us": true,
		"json:created_at:unix-us,timestamp":          false,
		"timestamp":                                  false,
		"header:a,previous":                          false,
	} {
		if _, err := preflightOf(f, []string{name}, "TIDEMARK_EVENT_TIME="+spec); err != nil {
			t.Fatal(err)
		}
		warned := strings.Contains(f.Warnings(), "if json:created_at:unix-us is meant to decide, put timestamp last")
		if warned != want {
			t.Errorf("%s: warned %v, want %v", spec, warned, want)
		}
	}
}
