package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
	"github.com/tidemarkhq/tidemark/proxy/repair"
	"github.com/tidemarkhq/tidemark/reorder"
)

var leastForRepair = []kafkatest.Grant{
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationRead), Fault: []string{"late topic raw.late", "READ", "kafka-acls", "--operation Read --operation Describe --topic raw.late"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationDescribe)}, // READ implies it
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.corrections", kmsg.ACLOperationWrite), Fault: []string{"corrections topic raw.corrections", "WRITE", "kafka-acls", "--operation Write --operation Describe --topic raw.corrections"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeGroup, "g.repair", kmsg.ACLOperationRead), Fault: []string{`group "g.repair"`, "READ", "kafka-acls", "--operation Read --group g.repair"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTransactionalId, "g.repair/repair", kmsg.ACLOperationWrite), Fault: []string{`transactional id "g.repair/repair"`, "WRITE", "kafka-acls", "--operation Write --operation Describe --transactional-id g.repair/repair"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationDescribeConfigs), Warning: "raw.late"},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.corrections", kmsg.ACLOperationDescribeConfigs), Warning: "raw.corrections"},
}

// repairOf does one run and returns what it reports.
func repairOf(f *kafkatest.Fixture, change func(*repair.Options), env ...string) (repair.Report, error) {
	f.T.Helper()
	ctx, cancel := context.WithTimeout(f.T.Context(), 20*time.Second)
	defer cancel()
	var report repair.Report
	o := repair.Options{Reasons: repair.Behind, TTL: time.Hour, Report: func(r repair.Report) error { report = r; return nil }}
	if change != nil {
		change(&o)
	}
	f.Log.Clear()
	err := repair.Run(ctx, f.Config(env...), o, f.Logger())
	return report, err
}

// writeLate writes one late record.
func writeLate(f *kafkatest.Fixture, cl *kgo.Client) {
	f.T.Helper()
	r := lateRecord("raw", 0, time.Now().UnixMilli(), 1, reorder.BehindWatermark, time.Now())
	if err := cl.ProduceSync(f.T.Context(), r).FirstErr(); err != nil {
		f.T.Fatal(err)
	}
}

// With the permissions that are documented a repair does its work without a word;
// without any one of them its name.
func TestRepairLeastPrivilege(t *testing.T) {
	for without := -1; without < len(leastForRepair); without++ {
		f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw", "raw.late", "raw.corrections"),
			kfake.User("PLAIN", "tm", "tm", kafkatest.Without(leastForRepair, without)...),
			kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
		size := "2000000"
		if _, err := f.Admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &size}}, "raw.corrections"); err != nil {
			t.Fatal(err)
		}
		connection, err := f.Config().ClientOpts(func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(append(connection, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		writeLate(f, cl)
		cl.Close()
		f.Login("tm")
		r, err := repairOf(f, nil)
		switch {
		case without >= 0 && leastForRepair[without].Fault != nil:
			kafkatest.WantUsage(t, err, append(leastForRepair[without].Fault, "--command-config admin.properties --add --allow-principal User:tm")...)
			if _, many := err.(fault.Faults); many {
				t.Errorf("more than one fault without %+v: %v", leastForRepair[without].ACL, err)
			}
		case err != nil || r.Corrections != 1:
			t.Errorf("without %d: %+v, %v", without, r, err)
		case without >= 0 && leastForRepair[without].Warning != "":
			kafkatest.Contains(t, f.Warnings(), leastForRepair[without].Warning, "kafka-acls")
		case f.Warnings() != "":
			t.Errorf("without %d: %s", without, f.Warnings())
		}
	}
}

// What a repair cannot work with, it says.
func TestRepairPreflight(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.SeedTopics(2, "raw"))
	_, err := repairOf(f, nil)
	kafkatest.WantUsage(t, err, "late topic raw.late: it does not exist", "tidemark run", "TIDEMARK_LATE_SUFFIX")

	f.Create("raw.late", 2, map[string]string{"retention.ms": "777000000"})
	f.Create("many", 3, nil)
	_, err = repairOf(f, func(o *repair.Options) { o.To = "many" })
	kafkatest.WantUsage(t, err, "corrections topic many", "3 partitions", "--to")
	f.Create("compacted", 2, map[string]string{"cleanup.policy": "compact"})
	_, err = repairOf(f, func(o *repair.Options) { o.To = "compacted" })
	kafkatest.WantUsage(t, err, "corrections topic compacted", "it is compacted")

	if _, err := repairOf(f, nil); err != nil {
		t.Fatal(err)
	}
	made := f.Settings("raw.corrections")
	if f.Partitions("raw.corrections") != 2 || *made["retention.ms"].Value != "777000000" || *made["cleanup.policy"].Value != "delete" {
		t.Errorf("created with %d partitions and %v", f.Partitions("raw.corrections"), made)
	}
}
