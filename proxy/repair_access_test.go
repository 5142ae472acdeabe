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
	"github.com/tidemarkhq/tidemark/proxy/repair"
	"github.com/tidemarkhq/tidemark/reorder"
)

var leastForRepair = []grant{
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationRead), fault: []string{"late topic raw.late", "READ", "kafka-acls", "--operation Read --operation Describe --topic raw.late"}},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationDescribe)}, // READ implies it
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.corrections", kmsg.ACLOperationWrite), fault: []string{"corrections topic raw.corrections", "WRITE", "kafka-acls", "--operation Write --operation Describe --topic raw.corrections"}},
	{ACL: acl(kmsg.ACLResourceTypeGroup, "g.repair", kmsg.ACLOperationRead), fault: []string{`group "g.repair"`, "READ", "kafka-acls", "--operation Read --group g.repair"}},
	{ACL: acl(kmsg.ACLResourceTypeTransactionalId, "g.repair/repair", kmsg.ACLOperationWrite), fault: []string{`transactional id "g.repair/repair"`, "WRITE", "kafka-acls", "--operation Write --operation Describe --transactional-id g.repair/repair"}},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationDescribeConfigs), warning: "raw.late"},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.corrections", kmsg.ACLOperationDescribeConfigs), warning: "raw.corrections"},
}

// repair does one run and returns what it reports.
func (f *departure) repair(change func(*RepairOptions), env ...string) (repair.Report, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	var report repair.Report
	o := RepairOptions{Reasons: repair.Behind, TTL: time.Hour, Report: func(r repair.Report) error { report = r; return nil }}
	if change != nil {
		change(&o)
	}
	f.log = journal{}
	err := Repair(ctx, f.config(env...), o, f.logger())
	return report, err
}

// writeLate writes one late record.
func (f *departure) writeLate(cl *kgo.Client) {
	f.t.Helper()
	r := lateRecord("raw", 0, time.Now().UnixMilli(), 1, reorder.BehindWatermark, time.Now())
	if err := cl.ProduceSync(f.t.Context(), r).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

// With the permissions that are documented a repair does its work without a word;
// without any one of them its name.
func TestRepairLeastPrivilege(t *testing.T) {
	for without := -1; without < len(leastForRepair); without++ {
		f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw", "raw.late", "raw.corrections"),
			kfake.User("PLAIN", "tm", "tm", permitted(leastForRepair, without)...),
			kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
		size := "2000000"
		if _, err := f.adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: maxMessageBytes, Value: &size}}, "raw.corrections"); err != nil {
			t.Fatal(err)
		}
		connection, err := f.config().ClientOpts(func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(append(connection, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		f.writeLate(cl)
		cl.Close()
		f.login("tm")
		r, err := f.repair(nil)
		switch {
		case without >= 0 && leastForRepair[without].fault != nil:
			wrong(t, err, append(leastForRepair[without].fault, "--command-config admin.properties --add --allow-principal User:tm")...)
			if _, many := err.(fault.Faults); many {
				t.Errorf("more than one fault without %+v: %v", leastForRepair[without].ACL, err)
			}
		case err != nil || r.Corrections != 1:
			t.Errorf("without %d: %+v, %v", without, r, err)
		case without >= 0 && leastForRepair[without].warning != "":
			contains(t, f.warnings(), leastForRepair[without].warning, "kafka-acls")
		case f.warnings() != "":
			t.Errorf("without %d: %s", without, f.warnings())
		}
	}
}

// What a repair cannot work with, it says.
func TestRepairPreflight(t *testing.T) {
	f := fakeDeparture(t, kfake.SeedTopics(2, "raw"))
	_, err := f.repair(nil)
	wrong(t, err, "late topic raw.late: it does not exist", "tidemark run", "TIDEMARK_LATE_SUFFIX")

	f.create("raw.late", 2, map[string]string{"retention.ms": "777000000"})
	f.create("many", 3, nil)
	_, err = f.repair(func(o *RepairOptions) { o.To = "many" })
	wrong(t, err, "corrections topic many", "3 partitions", "--to")
	f.create("compacted", 2, map[string]string{"cleanup.policy": "compact"})
	_, err = f.repair(func(o *RepairOptions) { o.To = "compacted" })
	wrong(t, err, "corrections topic compacted", "it is compacted")

	if _, err := f.repair(nil); err != nil {
		t.Fatal(err)
	}
	made := f.settings("raw.corrections")
	if f.partitions("raw.corrections") != 2 || made.text(retentionMs) != "777000000" || !made.cleans("delete") {
		t.Errorf("created with %d partitions and %v", f.partitions("raw.corrections"), made)
	}
}
