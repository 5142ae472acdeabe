package config

import (
	"fmt"
	"strings"
	"testing"
)

// outcome is what a configuration comes to: its values, secrets included, or its faults.
func outcome(vars ...string) string {
	c, err := load(vars...)
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprint(c.aws.accessKey, c.aws.secretKey.Reveal())
	for _, s := range c.Effective() {
		text += fmt.Sprintf("%s=%q\n", s.Key, s.Value)
	}
	for _, s := range c.secrets() {
		text += fmt.Sprintf("%s=%q\n", s.key, s.value.Reveal())
	}
	return text
}

// TestWhatNobodySeesAroundAValue: for every kind of variable, valid or not, a CR or spaces
// around the value change nothing, and quotes are named as what they are.
func TestWhatNobodySeesAroundAValue(t *testing.T) {
	for _, s := range settings {
		name := strings.TrimPrefix(s.key, Prefix)
		for _, value := range []string{s.fallback, "true", "7", "9s", "64MiB", "a,b", "header:x", "localhost:9092", "https://registry:8081", "PLAIN", "earliest", "/nowhere/file.pem", "?"} {
			if value == "" {
				continue
			}
			want := outcome(name + "=" + value)
			around := []string{value + "\r", value + "\r\n"}
			if !s.secret() {
				around = append(around, value+" \r", " "+value, "\t"+value+"  ", "\u00a0"+value+"\u200b", "\ufeff"+value)
			}
			for _, text := range around {
				if got := outcome(name + "=" + text); got != want {
					t.Errorf("%s=%q:\n%s\nwithout:\n%s", name, text, got, want)
				}
			}
			for _, quote := range []string{`"`, `'`} {
				for _, text := range []string{quote + value + quote, quote + value + quote + "\r"} {
					if got := outcome(name + "=" + text); !strings.Contains(got, s.key+": the value is in quotes\nhint: leave them out") {
						t.Errorf("%s=%s: %s", name, text, got)
					}
				}
			}
		}
		for text, want := range map[string]string{
			"\u201cvalue\u201d": "the value is in quotes", "\u201evalue\u201c": "the value is in quotes", "\u2018value\u2019": "the value is in quotes",
			`"value`: "the value has a quote at one end", `value"`: "the value has a quote at one end", "value\u201d": "the value has a quote at one end", `a,"b"`: "the value has a quote at one end",
			"value # what it is for": "the value has a comment behind it", "value\t#": "the value has a comment behind it", " # unset": "the value has a comment behind it",
		} {
			secret := s.secret() && !strings.HasSuffix(want, "in quotes")
			if got := outcome(name + "=" + text); strings.Contains(got, s.key+": "+want+"\nhint: ") == secret {
				t.Errorf("%s=%s: %s", name, text, got)
			}
		}
		if got, want := outcome(name+"= \r\n"), outcome(name+"="); got != want && !s.secret() {
			t.Errorf("%s set to nothing but spaces: %s", name, got)
		}
	}
}

// A secret's own spaces and quotes inside are its own.
func TestSecretsKeepTheirSpaces(t *testing.T) {
	login := []string{"SASL_MECHANISM=PLAIN", "SASL_USERNAME=u"}
	for text, want := range map[string]string{
		`"a`: `"a`, `a'`: `a'`, "`a`": "`a`", "a #b": "a #b", "\u201d": "\u201d", "a\u200b": "a\u200b",
		" a b \r\n": " a b ", "\ta\r": "\ta", `a"b"`: `a"b"`, "a\rb": "a\rb", `"`: `"`,
	} {
		c, err := load(append(login, "SASL_PASSWORD="+text)...)
		if err != nil || c.SASLPassword.Reveal() != want {
			t.Errorf("%q is %q, %v", text, c.SASLPassword.Reveal(), err)
		}
	}
	_, err := load(append(login, `SASL_PASSWORD="hunter2"`)...)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "a secret that has them is read from a file") {
		t.Error(err)
	}
	c, err := Load([]string{
		"TIDEMARK_TOPICS=orders", "TIDEMARK_SASL_MECHANISM=AWS_MSK_IAM", "TIDEMARK_TLS=true", "TIDEMARK_INSTANCE=a",
		"AWS_ACCESS_KEY_ID=key\r", "AWS_SECRET_ACCESS_KEY=secret\r\n",
	})
	for _, key := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		_, err := Load([]string{
			"TIDEMARK_TOPICS=orders", "TIDEMARK_SASL_MECHANISM=AWS_MSK_IAM", "TIDEMARK_TLS=true", "TIDEMARK_INSTANCE=a",
			"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret", key + `="hunter2"`,
		})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), key+": the value is in quotes\nhint: leave them out") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err != nil || c.aws.accessKey != "key" || c.aws.secretKey.Reveal() != "secret" {
		t.Error(c.aws.accessKey, err)
	}
}

// A file that was saved with a byte order mark hides its first variable.
func TestByteOrderMark(t *testing.T) {
	_, err := Load([]string{"\ufeffTIDEMARK_TOPICS=orders", "TIDEMARK_INSTANCE=a"})
	if err == nil || !strings.Contains(err.Error(), "TIDEMARK_TOPICS: its name begins with a byte order mark or a space, so it is not read\nhint: save the file") {
		t.Error(err)
	}
}

// A space before the = is a part of the name for docker and kubectl.
func TestSpaceBehindAName(t *testing.T) {
	_, err := Load([]string{"TIDEMARK_TOPICS=orders", "TIDEMARK_INSTANCE=a", "TIDEMARK_GROUP =g"})
	if err == nil || !strings.Contains(err.Error(), "TIDEMARK_GROUP: its name ends with a space, so it is not read\nhint: leave out the space before the =") {
		t.Error(err)
	}
}

// TestStartAsText: the places to start are read like event times.
func TestStartAsText(t *testing.T) {
	for text, want := range map[string]string{
		"2025-11-21T04:40Z": "2025-11-21T04:40:00Z", "2025-11-21 05:40:00+01": "2025-11-21T04:40:00Z",
		"2025-11-21t04:40:00.1239z": "2025-11-21T04:40:00.123Z", "1763700000123": "2025-11-21T04:40:00.123Z", "0": "1970-01-01T00:00:00Z",
	} {
		c, err := load("START=" + text)
		if err != nil || c.Start.String() != want {
			t.Errorf("%s is %s, %v", text, c.Start, err)
		}
	}
}
