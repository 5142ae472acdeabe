package preflight

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
	"github.com/tidemarkhq/tidemark/proxy/kafkatest"
)

var least = []kafkatest.Grant{
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw", kmsg.ACLOperationRead), Fault: []string{"source topic raw", "READ", "kafka-acls", "--operation Read", "--topic raw"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw", kmsg.ACLOperationDescribe)}, // READ implies it
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.ordered", kmsg.ACLOperationWrite), Fault: []string{"ordered output raw.ordered", "WRITE", "kafka-acls", "--operation Write", "--topic raw.ordered"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationWrite), Fault: []string{"late output raw.late", "WRITE", "kafka-acls", "--operation Write", "--topic raw.late"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead), Fault: []string{`group "g"`, "READ", "GROUP_AUTHORIZATION_FAILED", "kafka-acls", "--operation Read --group g"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTransactionalId, "g/i", kmsg.ACLOperationWrite), Fault: []string{`transactional id "g/i"`, "WRITE", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "kafka-acls", "--operation Write --operation Describe --resource-pattern-type prefixed --transactional-id g/"}},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationRead), Warning: "raw.late"},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.ordered", kmsg.ACLOperationDescribeConfigs), Warning: "raw.ordered"},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw", kmsg.ACLOperationDescribeConfigs), Warning: "topic=raw"},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.ordered", kmsg.ACLOperationRead), Warning: "raw.ordered"},
	{ACL: kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationDescribeConfigs), Warning: "raw.late"},
}

// With the permissions that are documented there is not a word; without any
// one of them its name.
func TestPreflightLeastPrivilege(t *testing.T) {
	for without := -1; without < len(least); without++ {
		f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw", "raw.ordered", "raw.late"),
			kfake.User("PLAIN", "tm", "tm", kafkatest.Without(least, without)...))
		f.Login("tm")
		if without < 0 || least[without].Fault == nil {
			roomy(f)
		}
		topics, err := preflightOf(f, []string{"raw"})
		switch {
		case without >= 0 && least[without].Fault != nil:
			kafkatest.WantUsage(t, err, append(least[without].Fault, "--command-config admin.properties --add --allow-principal User:tm")...)
			if _, many := err.(fault.Faults); many {
				t.Errorf("more than one fault without %+v: %v", least[without].ACL, err)
			}
		case err != nil || topics["raw"].Partitions != 2:
			t.Errorf("without %d: %v, %v", without, topics, err)
		case without >= 0 && least[without].Warning != "":
			kafkatest.Contains(t, f.Warnings(), least[without].Warning, "kafka-acls")
		case f.Warnings() != "":
			t.Errorf("without %d: %s", without, f.Warnings())
		}
	}
}

// Whoever may do nothing is told what all of it is: what is hidden may as well
// not exist.
func TestPreflightNoPermission(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw"), kfake.User("PLAIN", "tm", "tm"))
	f.Login("tm")
	_, err := preflightOf(f, []string{"raw"})
	kafkatest.WantUsage(t, err, `group "g"`, `transactional id "g/i"`,
		"look up the source topic raw: it does not exist, or not allowed to READ it", "--operation Read --operation Describe --topic raw\n",
		"write to the ordered output raw.ordered: not allowed to WRITE it", "write to the late output raw.late: not allowed to WRITE it",
		"--operation Write --operation Describe --operation Read --topic raw.late")
	if faults, ok := err.(fault.Faults); !ok || len(faults) != 5 || f.Warnings() != "" {
		t.Errorf("%v, log: %s", err, &f.Log)
	}
}

// roomy gives the outputs room for headers, which nobody then warns of.
func roomy(f *kafkatest.Fixture) {
	size := "2000000"
	_, err := f.Admin.AlterTopicConfigs(f.T.Context(), []kadm.AlterConfig{{Name: fault.MaxMessageBytes, Value: &size}}, "raw.ordered", "raw.late")
	if err != nil {
		f.T.Fatal(err)
	}
}

func TestPreflightAtLeastOnceNeedsNoTransactionalID(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(1, "raw", "raw.ordered", "raw.late"),
		kfake.User("PLAIN", "tm", "tm", kafkatest.Without(least, 5)...))
	f.Login("tm")
	if _, err := preflightOf(f, []string{"raw"}, "TIDEMARK_DELIVERY=at-least-once"); err != nil {
		t.Error(err)
	}
}

func TestPreflightLogin(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.SeedTopics(1, "raw"))
	f.Cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.Cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	_, err := preflightOf(f, []string{"raw"})
	kafkatest.WantUsage(t, err, "reach the brokers 127.0.0.1", "SASL_AUTHENTICATION_FAILED", "TIDEMARK_SASL_USERNAME")
}

// Brokers that have let us in before are asked until they do again.
func TestPreflightLetInBefore(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.SeedTopics(1, "raw"))
	cfg := f.Config()
	a, cluster := fault.NewReporter(f.Logger()), new(Cluster)
	if _, err := checkWith(t.Context(), f.Client(cfg), cfg, cfg.EventTime, a, cluster); err != nil {
		t.Fatal(err)
	}
	var refusals atomic.Int64
	f.Cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.Cluster.KeepControl()
		if refusals.Add(1) > 3 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	if _, err := checkWith(t.Context(), f.Client(cfg), cfg, cfg.EventTime, a, cluster); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(f.Log.String(), "logins that worked before"); n != 1 || refusals.Load() <= 3 {
		t.Errorf("told %d times of %d refusals", n, refusals.Load())
	}
	kafkatest.Contains(t, f.Log.String(), "level=ERROR", "SASL_AUTHENTICATION_FAILED", "hint=", "TIDEMARK_SASL_PASSWORD", "class=broker")
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
		{tls.NoClientCert, []string{"TIDEMARK_TLS=true"}, "certificate signed by unknown authority", "TIDEMARK_TLS_CA_FILE must contain"},
		{tls.RequireAnyClientCert, []string{"TIDEMARK_TLS=true", "TIDEMARK_TLS_CA_FILE=" + ours}, "certificate required", "set TIDEMARK_TLS_CERT_FILE"},
		{tls.NoClientCert, []string{"TIDEMARK_TLS=true", "TIDEMARK_TLS_CA_FILE=" + ours}, "", ""},
	} {
		f := kafkatest.NewFake(t, kfake.SeedTopics(1, "raw"), kfake.TLS(&tls.Config{Certificates: server.TLS.Certificates, ClientAuth: test.broker}))
		_, err := preflightOf(f, []string{"raw"}, test.env...)
		if test.fault == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		kafkatest.WantUsage(t, err, "reach the brokers 127.0.0.1", test.fault, test.hint)
	}
}

// Every fault of every topic is told at once, and nothing is changed.
func TestPreflightTellsAllFaults(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(1, "a", "b", "c", "c.ordered"), kfake.User("PLAIN", "tm", "tm",
		kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationWrite), kafkatest.Allow(kmsg.ACLResourceTypeTopic, "a", kmsg.ACLOperationRead),
		kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationCreate), kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationDescribeConfigs)))
	f.Login("tm")
	_, err := preflightOf(f, []string{"a", "b", "c", "d"})
	kafkatest.WantUsage(t, err, `the group "g"`, `the transactional id "g/i"`, "source topic b", "source topic c", "source topic d")
	if faults := err.(fault.Faults); len(faults) != 5 {
		t.Errorf("%d faults:\n%v", len(faults), err)
	}
	if n := f.Partitions("a.ordered"); n != 0 {
		t.Errorf("a.ordered was created in spite of the faults")
	}
}

// With settings hidden there is one warning for all topics, and what is missing
// is created all the same.
func TestPreflightHiddenSettings(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(2, "raw", "b"), kfake.User("PLAIN", "tm", "tm",
		kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationRead), kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationWrite),
		kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationCreate),
		kafkatest.Allow(kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead), kafkatest.Allow(kmsg.ACLResourceTypeTransactionalId, "g/i", kmsg.ACLOperationWrite)))
	f.Login("tm")
	topics, err := preflightOf(f, []string{"raw", "b"})
	if err != nil || len(topics) != 2 || f.Partitions("b.late") != 2 {
		t.Errorf("%v, %v", topics, err)
	}
	kafkatest.Contains(t, f.Warnings(), "not allowed to read the settings of topics", "topic=b,raw ", "--operation DescribeConfigs")
}

// What an instance may not do itself is left to somebody who may.
func TestPreflightMayNotChange(t *testing.T) {
	everything := []kfake.ACL{
		kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationRead), kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationWrite),
		kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationDescribeConfigs),
		kafkatest.Allow(kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead), kafkatest.Allow(kmsg.ACLResourceTypeTransactionalId, "g/i", kmsg.ACLOperationWrite),
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
		{"raw", []kfake.ACL{kafkatest.Allow(kmsg.ACLResourceTypeTopic, "raw.late", kmsg.ACLOperationCreate)}, []string{"create raw.ordered"}},
		{"raw", []kfake.ACL{kafkatest.Allow(kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationCreate)}, nil},
		{"raw raw.ordered=1 raw.late=1", []kfake.ACL{kafkatest.Allow(kmsg.ACLResourceTypeTopic, "*", kmsg.ACLOperationAlter)}, nil},
	} {
		f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.User("PLAIN", "tm", "tm", append(test.more, everything...)...))
		for word := range strings.FieldsSeq(test.exists) {
			topic, small := strings.CutSuffix(word, "=1")
			if small {
				f.Create(topic, 1, nil)
			} else {
				f.Create(topic, 2, nil)
			}
		}
		f.Login("tm")
		_, err := preflightOf(f, []string{"raw"})
		if test.fault == nil {
			if err != nil || f.Partitions("raw.late") != 2 {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		kafkatest.WantUsage(t, err, test.fault...)
		if test.more != nil && f.Partitions("raw.late") != 0 {
			t.Error("one output was created although the other cannot be")
		}
	}
}

// Outputs that are smaller than their source and may not be grown keep only the
// partitions waiting that they lack.
func TestPreflightMayNotGrow(t *testing.T) {
	f := kafkatest.NewFake(t, kfake.EnableACLs(), kfake.SeedTopics(3, "raw"), kfake.User("PLAIN", "tm", "tm", kafkatest.Without(least, -1)...))
	f.Create("raw.ordered", 2, nil)
	f.Create("raw.late", 1, nil)
	f.Login("tm")
	topics, err := preflightOf(f, []string{"raw"})
	if err != nil || topics["raw"].Usable != 1 || topics["raw"].Partitions != 3 {
		t.Fatalf("%+v: %v", topics["raw"], err)
	}
	kafkatest.Contains(t, f.Warnings(), "grow raw.ordered to 3 partitions: TOPIC_AUTHORIZATION_FAILED", "--alter --topic raw.ordered --partitions 3",
		"--operation Alter --topic raw.ordered", "grow raw.late to 3 partitions")
}
