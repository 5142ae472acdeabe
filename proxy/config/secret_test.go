package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/lmittmann/tint"
)

const canary = "hunter2-the-canary"

// hidden puts a secret where fmt may not call its methods.
type hidden struct {
	cfg    Config
	secret Secret
	ptr    *Secret
	list   []Secret
	named  map[string]Secret
}

func places(t *testing.T) map[string]any {
	s := NewSecret(canary)
	c := mustLoad(t, "SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD="+canary,
		"ADMIN_USERNAME=u", "ADMIN_PASSWORD="+canary, "SCHEMA_REGISTRY=http://r", "SCHEMA_REGISTRY_USERNAME=u", "SCHEMA_REGISTRY_PASSWORD="+canary)
	return map[string]any{
		"secret": s, "pointer": &s, "config": c, "pointer to config": &c, "slice": []Secret{s}, "map": map[string]Secret{"a": s},
		"hidden": hidden{c, s, &s, []Secret{s}, map[string]Secret{"a": s}}, "effective": c.Effective(),
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	for name, v := range places(t) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%10.3s"} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, canary) || strings.Contains(out, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s with %s: %s", name, verb, out)
			}
		}
	}
	for verb, want := range map[string]string{"%v": redacted, "%s": redacted, "%#v": redacted} {
		if out := fmt.Sprintf(verb, NewSecret(canary)); out != want {
			t.Errorf("%s prints %s, want %s", verb, out, want)
		}
	}
}

func TestSecretIsNeverMarshalled(t *testing.T) {
	for name, v := range places(t) {
		out, err := json.Marshal(v)
		if err != nil || bytes.Contains(out, []byte(canary)) {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}

func TestSecretIsNeverLogged(t *testing.T) {
	handlers := map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		"tint": func(b *bytes.Buffer) slog.Handler { return tint.NewTextHandler(b, nil) },
	}
	for handlerName, handler := range handlers {
		for name, v := range places(t) {
			var out bytes.Buffer
			log := slog.New(handler(&out))
			log.Info("starting", "value", v, slog.Group("group", "value", v))
			log.With("value", v).Info("again")
			if strings.Contains(out.String(), canary) {
				t.Errorf("%s, %s: %s", handlerName, name, out.String())
			}
			if name == "secret" && !strings.Contains(out.String(), redacted) {
				t.Errorf("%s shows nothing in place of the secret: %s", handlerName, out.String())
			}
		}
	}
}

// A canary in the place of every secret must not come out of any fault.
func TestSecretIsInNoFault(t *testing.T) {
	for _, vars := range [][]string{
		{"SASL_PASSWORD=" + canary},
		{"SASL_PASSWORD=" + canary, "SASL_PASSWORD_FILE=/nowhere"},
		{"SASL_PASSWORD=" + canary, "SASL_MECHANISM=x"},
		{"SASL_CLIENT_SECRET=" + canary},
		{"SASL_CLIENT_SECRET=" + canary, "SASL_CLIENT_SECRET_FILE=/nowhere", "SASL_MECHANISM=OAUTHBEARER", "SASL_TOKEN_URL=http://i"},
		{"SASL_MECHANISM=OAUTHBEARER", "SASL_TOKEN_URL=https://c:" + canary + "@i", "SASL_CLIENT_ID=c", "SASL_CLIENT_SECRET=s"},
		{"SASL_PASWORD=" + canary},
		{"SASL_PASSWORD=" + canary, "TOPICS="},
		{"SCHEMA_REGISTRY_PASSWORD=" + canary},
		{"SCHEMA_REGISTRY_TOKEN=" + canary, "SCHEMA_REGISTRY_PASSWORD=" + canary, "SCHEMA_REGISTRY=http://r"},
		{"SCHEMA_REGISTRY_TOKEN=" + canary, "SCHEMA_REGISTRY_TOKEN_FILE=/nowhere"},
		{"SCHEMA_REGISTRY=http://u:" + canary + "@r"},
		{"SCHEMA_REGISTRY=http://u:%zz" + canary + "@r"},
		{"BROKERS=kafka://user:" + canary + "@host"},
		{"BROKERS=user:" + canary + "@host:9092"},
	} {
		if _, err := load(vars...); err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
			t.Errorf("%v: %v", vars, err)
		}
	}
}

// What stands in the place of a secret is the same everywhere.
func TestSecretShowsStars(t *testing.T) {
	s := NewSecret(canary)
	if out, err := json.Marshal(s); err != nil || string(out) != `"***"` {
		t.Errorf("as JSON: %s, %v", out, err)
	}
	if v := s.LogValue(); v.Kind() != slog.KindString || v.String() != redacted {
		t.Errorf("as a log value: %v", v)
	}
}

func TestUnsetSecret(t *testing.T) {
	if s := (Secret{}); s.IsSet() || s.Reveal() != "" || fmt.Sprint(s) != "" {
		t.Errorf("%v, %q", s.IsSet(), fmt.Sprint(s))
	}
}
