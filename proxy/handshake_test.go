package proxy

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/preflight"
)

func TestSecretsInClearAreWarnedOf(t *testing.T) {
	const brokers, registry = "goes to the brokers unencrypted", "goes to the schema registry unencrypted"
	login := " TIDEMARK_SASL_USERNAME=u TIDEMARK_SASL_PASSWORD=hunter2 "
	asking := " TIDEMARK_SCHEMA_REGISTRY_TOKEN=hunter2 TIDEMARK_SCHEMA_REGISTRY="
	for env, want := range map[string]string{
		"":                                      "",
		"TIDEMARK_SASL_MECHANISM=PLAIN" + login: brokers,
		"TIDEMARK_SASL_MECHANISM=PLAIN TIDEMARK_TLS=true" + login: "",
		"TIDEMARK_SASL_MECHANISM=SCRAM-SHA-512" + login:           "", // it is not sent
		"TIDEMARK_SCHEMA_REGISTRY=http://registry":                "",
		asking + "https://a,http://b":                             registry,
		asking + "https://a,HTTPS://b":                            "",
	} {
		cfg, err := config.Load(append(strings.Fields(env), "TIDEMARK_TOPICS=raw"))
		if err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		var out strings.Builder
		preflight.WarnInClear(cfg, slog.New(slog.NewTextHandler(&out, nil)))
		text := out.String()
		if (text == "") != (want == "") || !strings.Contains(text, want) || strings.Contains(text, "hunter2") {
			t.Errorf("%q: %s", env, text)
		}
	}
}
