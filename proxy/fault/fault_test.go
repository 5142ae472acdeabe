package fault

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

func TestFaults(t *testing.T) {
	cause := errors.New("no such thing")
	one := Failed(fmt.Errorf("read a: %w", cause), "look again")
	two := Usage(errors.New("write b: denied"), "")
	for _, test := range []struct {
		faults Faults
		text   string
		code   int
	}{
		{Faults{one}, "read a: no such thing", 1},
		{Faults{one, one}, "read a: no such thing\nhint: look again\nread a: no such thing\nhint: look again", 1},
		{Faults{one, two}, "read a: no such thing\nhint: look again\nwrite b: denied", 2},
		{Faults{two, one}, "write b: denied\nread a: no such thing\nhint: look again", 2},
	} {
		err := test.faults.Err()
		if err.Error() != test.text {
			t.Errorf("text is\n%s\nwant\n%s", err, test.text)
		}
		exit, ok := errors.AsType[interface {
			error
			ExitCode() int
		}](err)
		if !ok || exit.ExitCode() != test.code {
			t.Errorf("%q ends with %v, want %d", err, exit, test.code)
		}
		if fault := new(Fault); !errors.As(err, &fault) || fault != test.faults[0] {
			t.Errorf("%q is no Fault", err)
		}
	}
	if !errors.Is(Faults{two, one}.Err(), cause) {
		t.Error("the cause is lost")
	}
	if hint := one.Hint(); hint != "look again" {
		t.Errorf("hint is %q", hint)
	}
	if err := (Faults{}).Err(); err != nil {
		t.Errorf("no faults are an error: %v", err)
	}
}

func TestRefused(t *testing.T) {
	cfg := config.Config{Brokers: []string{"b:9092"}, Group: "billing", Instance: "it's me"}
	for _, test := range []struct {
		err        error
		text, hint string
	}{
		{
			fmt.Errorf("join: %w", kerr.GroupAuthorizationFailed), `use the group "billing": not allowed to READ it`,
			"allow it: kafka-acls --bootstrap-server b:9092 --add --allow-principal User:ANONYMOUS --operation Read --group billing",
		},
		{
			fmt.Errorf("begin: %w", kerr.TransactionalIDAuthorizationFailed), `use the transactional id "billing/it's me": not allowed to WRITE it`,
			`allow it: kafka-acls --bootstrap-server b:9092 --add --allow-principal User:ANONYMOUS --operation Write --operation Describe --resource-pattern-type prefixed --transactional-id billing/`,
		},
	} {
		f := Forbidden(cfg, test.err)
		if f == nil || f.Code != 2 || !errors.Is(f, test.err) || f.Error() != test.text+": "+test.err.Error() || f.Advice != test.hint {
			t.Errorf("%v gives\n%+v\nwant\n%s\n%s", test.err, f, test.text, test.hint)
		}
	}
	for _, err := range []error{nil, kerr.TopicAuthorizationFailed, errors.New("x")} {
		if f := Forbidden(cfg, err); f != nil {
			t.Errorf("%v gives %v", err, f)
		}
	}
}

func TestCommands(t *testing.T) {
	plain := Commands{config.Config{Brokers: []string{"a:1", "b:2"}}}
	login := Commands{config.Config{Brokers: []string{"a:1"}, SASLMechanism: config.Plain, SASLUsername: "CN=tide mark"}}
	secure := Commands{config.Config{Brokers: []string{"a:1"}, TLS: true}}
	for _, test := range []struct{ got, want string }{
		{plain.Grow("t", 5), "kafka-topics --bootstrap-server a:1,b:2 --alter --topic t --partitions 5"},
		{plain.Create("t", 3, 2, []Setting{{Key: "a.b", Value: "1"}, {Key: "c", Value: "x,y"}}), "kafka-topics --bootstrap-server a:1,b:2 --create --topic t --partitions 3 --replication-factor 2 --config a.b=1 --config c=x,y"},
		{plain.Create("t", 1, 0, nil), "kafka-topics --bootstrap-server a:1,b:2 --create --topic t --partitions 1"},
		{secure.Set("t", "cleanup.policy", "delete"), "kafka-configs --bootstrap-server a:1 --command-config admin.properties --alter --entity-type topics --entity-name t --add-config cleanup.policy=delete"},
		{secure.Allow("--topic", "t", kadm.OpDescribeConfigs), "kafka-acls --bootstrap-server a:1 --command-config admin.properties --add --allow-principal User:ANONYMOUS --operation DescribeConfigs --topic t"},
		{login.Allow("--group", "", kadm.OpRead), "kafka-acls --bootstrap-server a:1 --command-config admin.properties --add --allow-principal 'User:CN=tide mark' --operation Read --group ''"},
	} {
		if test.got != test.want {
			t.Errorf("got\n%s\nwant\n%s", test.got, test.want)
		}
	}
}
