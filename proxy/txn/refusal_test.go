package txn

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// TestCure: the cure of a refusal is a command that can be run as it is, for the one setting
// that is in the way.
func TestCure(t *testing.T) {
	commands := fault.CommandsFor(config.Config{Brokers: []string{"b:9092"}})
	set := func(setting string) string {
		return "kafka-configs --bootstrap-server b:9092 --alter --entity-type topics --entity-name orders.ordered --add-config " + setting
	}
	for _, test := range []struct {
		name   string
		err    error
		key    []byte
		size   int
		sizes  Sizes
		age    time.Duration
		want   string
		absent string
	}{
		{name: "too old", err: kerr.InvalidTimestamp, age: 3 * time.Hour, want: set("message.timestamp.before.max.ms=9223372036854775807"), absent: "after.max"},
		{name: "too far ahead", err: kerr.InvalidTimestamp, age: -3 * time.Hour, want: set("message.timestamp.after.max.ms=9223372036854775807"), absent: "before.max"},
		{name: "no key", err: kerr.InvalidRecord, want: set("cleanup.policy=delete")},
		{name: "for another reason", err: kerr.InvalidRecord, key: []byte("k"), want: "schema validation", absent: "cleanup.policy"},
		{name: "too large", err: kerr.MessageTooLarge, size: 2_000_000, want: set("max.message.bytes=2004193")},
		{name: "too large, and the topic's limits are known", err: kerr.MessageTooLarge, size: 700, sizes: Sizes{Has: 120, Needs: 1_049_612}, want: "more than the 120 that orders.ordered accepts; raise the limit: " + set("max.message.bytes=1049612")},
		{name: "too large, and compressed it was accepted by the source", err: kerr.MessageTooLarge, size: 2_000_000, sizes: Sizes{Has: 120, Needs: 1_049_612}, want: set("max.message.bytes=2004193")},
		{name: "too large, although the limit is larger", err: kerr.MessageTooLarge, size: 700, sizes: Sizes{Has: 3_000_000}, want: "more than orders.ordered accepts", absent: "3000000"},
		{name: "larger than a segment", err: kerr.RecordListTooLarge, size: 2_000_000, want: set("segment.bytes=2004193")},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &kgo.Record{Topic: "orders.ordered", Key: test.key, Value: make([]byte, test.size), Timestamp: time.Now().Add(-test.age)}
			hint := Cure(commands, r, test.err, test.sizes)
			if !strings.Contains(hint, test.want) || test.absent != "" && strings.Contains(hint, test.absent) {
				t.Errorf("hint: %s", hint)
			}
		})
	}
}
