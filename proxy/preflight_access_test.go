package proxy

import (
	"crypto/tls"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

func acl(kind kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
	return kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
}

// grant is a permission, and how its absence is told.
type grant struct {
	kfake.ACL
	fault   []string // what the fault says
	warning string   // if there is none, what the warning says
}

var least = []grant{
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw", kmsg.ACLOperationRead), fault: []string{"source topic raw", "READ", "kafka-acls", "--operation Read", "--topic raw"}},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw", kmsg.ACLOperationDescribe)}, // READ implies it
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.ordered", kmsg.ACLOperationWrite), fault: []string{"ordered output raw.ordered", "WRITE", "kafka-acls", "--operation Write", "--topic raw.ordered"}},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationWrite), fault: []string{"late output raw.late", "WRITE", "kafka-acls", "--operation Write", "--topic raw.late"}},
	{ACL: acl(kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead), fault: []string{`group "g"`, "READ", "GROUP_AUTHORIZATION_FAILED", "kafka-acls", "--operation Read --group g"}},
	{ACL: acl(kmsg.ACLResourceTypeTransactionalId, "g/i", kmsg.ACLOperationWrite), fault: []string{`transactional id "g/i"`, "WRITE", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "kafka-acls", "--operation Write --operation Describe --resource-pattern-type prefixed --transactional-id g/"}},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationRead), warning: "raw.late"},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.ordered", kmsg.ACLOperationDescribeConfigs), warning: "raw.ordered"},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw", kmsg.ACLOperationDescribeConfigs), warning: "topic=raw"},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.ordered", kmsg.ACLOperationRead), warning: "raw.ordered"},
	{ACL: acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationDescribeConfigs), warning: "raw.late"},
}

func permitted(grants []grant, without int) (acls []kfake.ACL) {
	for i, g := range grants {
		if i != without {
			acls = append(acls, g.ACL)
		}
	}
	return acls
}

// With the permissions that are documented there is not a word; without any
// one of them its name.
func TestPreflightLeastPrivilege(t *testing.T) {
	for without := -1; without < len(least); without++ {
		f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw", "raw.ordered", "raw.late"),
			kfake.User("PLAIN", "tm", "tm", permitted(least, without)...))
		f.login("tm")
		if without < 0 || least[without].fault == nil {
			roomy(f)
		}
		topics, err := f.run([]string{"raw"})
		switch {
		case without >= 0 && least[without].fault != nil:
			wrong(t, err, append(least[without].fault, "--command-config admin.properties --add --allow-principal User:tm")...)
			if _, many := err.(fault.Faults); many {
				t.Errorf("more than one fault without %+v: %v", least[without].ACL, err)
			}
		case err != nil || topics["raw"].Partitions != 2:
			t.Errorf("without %d: %v, %v", without, topics, err)
		case without >= 0 && least[without].warning != "":
			contains(t, f.warnings(), least[without].warning, "kafka-acls")
		case f.warnings() != "":
			t.Errorf("without %d: %s", without, f.warnings())
		}
	}
}

// Whoever may do nothing is told what all of it is: what is hidden may as well
// not exist.
func TestPreflightNoPermission(t *testing.T) {
	f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw"), kfake.User("PLAIN", "tm", "tm"))
	f.login("tm")
	_, err := f.run([]string{"raw"})
	wrong(t, err, `group "g"`, `transactional id "g/i"`,
		"look up the source topic raw: it does not exist, or we may not READ it", "--operation Read --operation Describe --topic raw\n",
		"write to the ordered output raw.ordered: we may not WRITE it", "write to the late output raw.late: we may not WRITE it",
		"--operation Write --operation Describe --operation Read --topic raw.late")
	if faults, ok := err.(fault.Faults); !ok || len(faults) != 5 || f.warnings() != "" {
		t.Errorf("%v, log: %s", err, &f.log)
	}
}

// roomy gives the outputs room for headers, which nobody then warns of.
func roomy(f *departure) {
	size := "2000000"
	_, err := f.adm.AlterTopicConfigs(f.t.Context(), []kadm.AlterConfig{{Name: maxMessageBytes, Value: &size}}, "raw.ordered", "raw.late")
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestPreflightAtLeastOnceNeedsNoTransactionalID(t *testing.T) {
	f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(1, "raw", "raw.ordered", "raw.late"),
		kfake.User("PLAIN", "tm", "tm", permitted(least, 5)...))
	f.login("tm")
	if _, err := f.run([]string{"raw"}, "TIDEMARK_DELIVERY=at-least-once"); err != nil {
		t.Error(err)
	}
}

func TestPreflightLogin(t *testing.T) {
	f := fakeDeparture(t, kfake.SeedTopics(1, "raw"))
	f.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	_, err := f.run([]string{"raw"})
	wrong(t, err, "reach the brokers 127.0.0.1", "SASL_AUTHENTICATION_FAILED", "TIDEMARK_SASL_USERNAME")
}

// Brokers that have let us in before are asked until they do again.
func TestPreflightLetInBefore(t *testing.T) {
	f := fakeDeparture(t, kfake.SeedTopics(1, "raw"))
	cfg := f.config()
	a, cluster := fault.NewReporter(f.logger()), new(oneCluster)
	if _, err := preflight(t.Context(), f.client(cfg), cfg, cfg.EventTime, a, cluster); err != nil {
		t.Fatal(err)
	}
	var refusals atomic.Int64
	f.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		if refusals.Add(1) > 3 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	if _, err := preflight(t.Context(), f.client(cfg), cfg, cfg.EventTime, a, cluster); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(f.log.String(), "do not let us in any more"); n != 1 || refusals.Load() <= 3 {
		t.Errorf("told %d times of %d refusals", n, refusals.Load())
	}
	contains(t, f.log.String(), "level=ERROR", "SASL_AUTHENTICATION_FAILED", "hint=", "TIDEMARK_SASL_PASSWORD", "class=broker")
}

func TestPreflightTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil) // for its certificate
	defer server.Close()
	ours := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ours, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		broker tls.ClientAuthType
		env    []string
		fault  string
		hint   string
	}{
		{tls.NoClientCert, []string{"TIDEMARK_TLS=true"}, "certificate signed by unknown authority", "TIDEMARK_TLS_CA_FILE has to hold"},
		{tls.RequireAnyClientCert, []string{"TIDEMARK_TLS=true", "TIDEMARK_TLS_CA_FILE=" + ours}, "certificate required", "set TIDEMARK_TLS_CERT_FILE"},
		{tls.NoClientCert, []string{"TIDEMARK_TLS=true", "TIDEMARK_TLS_CA_FILE=" + ours}, "", ""},
	} {
		f := fakeDeparture(t, kfake.SeedTopics(1, "raw"), kfake.TLS(&tls.Config{Certificates: server.TLS.Certificates, ClientAuth: test.broker}))
		_, err := f.run([]string{"raw"}, test.env...)
		if test.fault == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wrong(t, err, "reach the brokers 127.0.0.1", test.fault, test.hint)
	}
}

// Every fault of every topic is told at once, and nothing is changed.
func TestPreflightTellsAllFaults(t *testing.T) {
	f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(1, "a", "b", "c", "c.ordered"), kfake.User("PLAIN", "tm", "tm",
		acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationWrite), acl(kmsg.ACLResourceTypeTopic, "a", kmsg.ACLOperationRead),
		acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationCreate), acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationDescribeConfigs)))
	f.login("tm")
	_, err := f.run([]string{"a", "b", "c", "d"})
	wrong(t, err, `the group "g"`, `the transactional id "g/i"`, "source topic b", "source topic c", "source topic d")
	if faults := err.(fault.Faults); len(faults) != 5 {
		t.Errorf("%d faults:\n%v", len(faults), err)
	}
	if n := f.partitions("a.ordered"); n != 0 {
		t.Errorf("a.ordered was created in spite of the faults")
	}
}

// With settings hidden there is one warning for all topics, and what is missing
// is created all the same.
func TestPreflightHiddenSettings(t *testing.T) {
	f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw", "b"), kfake.User("PLAIN", "tm", "tm",
		acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationRead), acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationWrite),
		acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationCreate),
		acl(kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead), acl(kmsg.ACLResourceTypeTransactionalId, "g/i", kmsg.ACLOperationWrite)))
	f.login("tm")
	topics, err := f.run([]string{"raw", "b"})
	if err != nil || len(topics) != 2 || f.partitions("b.late") != 2 {
		t.Errorf("%v, %v", topics, err)
	}
	contains(t, f.warnings(), "settings of topics are hidden", "topic=b,raw ", "--operation DescribeConfigs")
}

// What an instance may not do itself is left to somebody who may.
func TestPreflightMayNotChange(t *testing.T) {
	everything := []kfake.ACL{
		acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationRead), acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationWrite),
		acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationDescribeConfigs),
		acl(kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead), acl(kmsg.ACLResourceTypeTransactionalId, "g/i", kmsg.ACLOperationWrite),
	}
	for _, test := range []struct {
		exists string
		more   []kfake.ACL
		fault  []string
	}{
		{"raw", nil, []string{
			"create raw.ordered: TOPIC_AUTHORIZATION_FAILED", "create raw.late: TOPIC_AUTHORIZATION_FAILED",
			"--create --topic raw.ordered --partitions 2 --replication-factor 1 --config cleanup.policy=delete --config max.message.bytes=1049612",
			"or allow it: kafka-acls", "--operation Create --topic raw.ordered",
		}},
		{"raw", []kfake.ACL{acl(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationCreate)}, []string{"create raw.ordered"}},
		{"raw", []kfake.ACL{acl(kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationCreate)}, nil},
		{"raw raw.ordered=1 raw.late=1", []kfake.ACL{acl(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationAlter)}, nil},
	} {
		f := fakeDeparture(t, kfake.EnableACLs(), kfake.User("PLAIN", "tm", "tm", append(test.more, everything...)...))
		for word := range strings.FieldsSeq(test.exists) {
			topic, small := strings.CutSuffix(word, "=1")
			if small {
				f.create(topic, 1, nil)
			} else {
				f.create(topic, 2, nil)
			}
		}
		f.login("tm")
		_, err := f.run([]string{"raw"})
		if test.fault == nil {
			if err != nil || f.partitions("raw.late") != 2 {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		wrong(t, err, test.fault...)
		if test.more != nil && f.partitions("raw.late") != 0 {
			t.Error("one output was created although the other cannot be")
		}
	}
}

// Outputs that are smaller than their source and may not be grown keep only the
// partitions waiting that they lack.
func TestPreflightMayNotGrow(t *testing.T) {
	f := fakeDeparture(t, kfake.EnableACLs(), kfake.SeedTopics(3, "raw"), kfake.User("PLAIN", "tm", "tm", permitted(least, -1)...))
	f.create("raw.ordered", 2, nil)
	f.create("raw.late", 1, nil)
	f.login("tm")
	topics, err := f.run([]string{"raw"})
	if err != nil || topics["raw"].Usable != 1 || topics["raw"].Partitions != 3 {
		t.Fatalf("%+v: %v", topics["raw"], err)
	}
	contains(t, f.warnings(), "grow raw.ordered to 3 partitions: TOPIC_AUTHORIZATION_FAILED", "--alter --topic raw.ordered --partitions 3",
		"--operation Alter --topic raw.ordered", "grow raw.late to 3 partitions")
}
