package fault

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Who holds a partition open is said as far as it is known, and what is not known is not
// guessed; the commands of the hint were tried on Kafka 4.1.
func TestOpenTransactionInWords(t *testing.T) {
	seen := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	began := seen.Add(-time.Minute)
	const tools = "kafka-transactions --bootstrap-server broker:9092 "
	for _, x := range []struct {
		open               OpenTransaction
		words, until, cure string
	}{
		{
			OpenTransaction{Topic: "payments.ordered", Partition: 3, Output: true, Offset: 120, Behind: 7, Seen: seen, ProducerID: 4, TransactionalID: "x", Since: began},
			`another program (transactional id "x") holds payments.ordered partition 3 open since 2026-11-20T11:59:00Z: readers of committed records see nothing from offset 120 on until it ends, and 7 offsets are behind it`,
			`until another program (transactional id "x") ends its transaction, open since 2026-11-20T11:59:00Z`,
			tools + "forceTerminateTransaction --transactionalId x",
		},
		{
			OpenTransaction{Topic: "payments", Partition: 3, Offset: 120, Behind: 1, Seen: seen, ProducerID: 4, TransactionalID: "it's", Since: began},
			`a producer (transactional id "it's") holds payments partition 3 open since 2026-11-20T11:59:00Z: nothing from offset 120 on can be read until it ends, and 1 offset is behind it`,
			`until a producer (transactional id "it's") ends its transaction, open since 2026-11-20T11:59:00Z`,
			tools + `describe --transactional-id 'it'\''s';`,
		},
		{
			OpenTransaction{Topic: "payments.late", Output: true, Offset: 5, Behind: 2, Seen: seen, ProducerID: 4, TransactionalID: "tidemark/b", Sibling: true},
			`another instance of this group (transactional id "tidemark/b") holds payments.late partition 0 open since 2026-11-20T12:00:00Z or before: readers of committed records see nothing from offset 5 on until it ends, and 2 offsets are behind it`,
			`until another instance of this group (transactional id "tidemark/b") ends its transaction, open since 2026-11-20T12:00:00Z or before`,
			tools + "describe --transactional-id tidemark/b;",
		},
		{
			OpenTransaction{Topic: "payments", Offset: 5, Behind: 2, Seen: seen, ProducerID: 4, Unknown: errors.New("denied")},
			`a producer (producer id 4) holds payments partition 0 open since 2026-11-20T12:00:00Z or before: nothing from offset 5 on can be read until it ends, and 2 offsets are behind it (cannot see whose it is: denied)`,
			`until a producer (producer id 4) ends its transaction, open since 2026-11-20T12:00:00Z or before`,
			tools + "abort --topic payments --partition 0 --start-offset 5",
		},
		{
			OpenTransaction{Topic: "payments", Offset: 5, Behind: 2, Seen: seen, ProducerID: -1, Unknown: errors.New("denied")},
			`a producer holds payments partition 0 open since 2026-11-20T12:00:00Z or before: nothing from offset 5 on can be read until it ends, and 2 offsets are behind it (cannot see whose it is: denied)`,
			`until a producer ends its transaction, open since 2026-11-20T12:00:00Z or before`,
			tools + "describe-producers --topic payments --partition 0;",
		},
	} {
		if got := x.open.String(); got != x.words {
			t.Errorf("%s\nand not\n%s", got, x.words)
		}
		if got := x.open.Until(); got != x.until {
			t.Errorf("%s\nand not\n%s", got, x.until)
		}
		cure := x.open.Cure(CommandsFor(config.Config{Brokers: []string{"broker:9092"}}))
		if !strings.Contains(cure, x.cure) || strings.Contains(cure, "abort") != (x.open.TransactionalID == "") {
			t.Errorf("%s\nlacks\n%s", cure, x.cure)
		}
	}
}
