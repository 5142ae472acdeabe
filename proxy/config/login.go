package config

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// login returns the SASL mechanism, nil for none. Secrets from files are read at every login:
// brokers may ask for another one on the same connection.
func (c Config) login(warn func(error)) (sasl.Mechanism, error) {
	password := secretOf(c.SASLPassword, c.SASLPasswordFile, warn)
	if _, err := password.get(); err != nil {
		return nil, err
	}
	scramAuth := func(context.Context) (scram.Auth, error) {
		pass, err := password.get()
		return scram.Auth{User: c.SASLUsername, Pass: pass.Reveal()}, err
	}
	switch c.SASLMechanism {
	case Plain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := password.get()
			return plain.Auth{User: c.SASLUsername, Pass: pass.Reveal()}, err
		}), nil
	case ScramSHA256:
		return scram.Sha256(scramAuth), nil
	case ScramSHA512:
		return scram.Sha512(scramAuth), nil
	case OAuthBearer:
		return c.bearer(warn)
	case AWSMSKIAM:
		return aws.Auth{
			AccessKey: c.aws.accessKey, SecretKey: c.aws.secretKey.Reveal(), SessionToken: c.aws.sessionToken.Reveal(),
			UserAgent: "tidemark",
		}.AsManagedStreamingIAMMechanism(), nil
	}
	return nil, nil
}

// secretOf returns a secret that may come from a file.
func secretOf(value Secret, file string, warn func(error)) *reread[Secret] {
	if file == "" {
		return fixed(value)
	}
	return &reread[Secret]{files: named(file), from: func() (Secret, error) { return readSecret(file) }, warn: warn}
}

// bearer is OAUTHBEARER.
type bearer struct {
	token      func(context.Context) (string, error)
	refused    func() // called when the brokers refuse it
	extensions map[string]string
}

func (c Config) bearer(warn func(error)) (sasl.Mechanism, error) {
	b := bearer{refused: func() {}, extensions: map[string]string{}}
	for _, e := range c.SASLExtensions {
		key, value, _ := strings.Cut(e, "=")
		b.extensions[key] = value
	}
	if c.SASLTokenURL != "" {
		grant, err := c.grant(warn)
		if err != nil {
			return nil, err
		}
		b.token, b.refused = grant.token, grant.forget
		return b, nil
	}
	file := secretOf(Secret{}, c.SASLTokenFile, warn)
	if _, err := file.get(); err != nil {
		return nil, err
	}
	b.token = func(context.Context) (string, error) {
		token, err := file.get()
		return token.Reveal(), err
	}
	return b, nil
}

// Name implements sasl.Mechanism.
func (bearer) Name() string { return string(OAuthBearer) }

// Authenticate implements sasl.Mechanism.
func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s, first, err := oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		token, err := b.token(ctx)
		return oauth.Auth{Token: token, Extensions: b.extensions}, err
	}).Authenticate(ctx, host)
	return bearerSession{s, b.refused}, first, err
}

type bearerSession struct {
	sasl.Session
	refused func()
}

// Challenge reads why brokers refuse a token: they say so in an answer, and refuse the login
// only after another round trip, which this saves.
func (s bearerSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) == 0 {
		return s.Session.Challenge(answer)
	}
	s.refused()
	var refusal struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(answer, &refusal) != nil || refusal.Status == "" {
		refusal.Status = "no reason given"
	}
	return false, nil, fmt.Errorf("%w: the token is refused: %s", kerr.SaslAuthenticationFailed, short(refusal.Status))
}

// short cuts a foreign text for the log.
func short(text string) string {
	const most = 200
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}

// awsCredentials are those of AWS's own variables.
type awsCredentials struct {
	accessKey               string
	secretKey, sessionToken Secret
}

// The variables that AWS's own tools read.
const (
	keyAWSAccessKey    = "AWS_ACCESS_KEY_ID"
	keyAWSSecretKey    = "AWS_SECRET_ACCESS_KEY"
	keyAWSSessionToken = "AWS_SESSION_TOKEN"
)

func awsFrom(vars map[string]string) awsCredentials {
	value := func(key string) string { return strings.TrimFunc(vars[key], unseen) } // see tidy
	return awsCredentials{value(keyAWSAccessKey), NewSecret(value(keyAWSSecretKey)), NewSecret(value(keyAWSSessionToken))}
}

// InClear reports whether the password or the token can be read by whoever sees the
// packets. SCRAM does not send the password.
func (c Config) InClear() bool {
	return !c.TLS && (c.SASLMechanism == Plain || c.SASLMechanism == OAuthBearer)
}

// RegistryInClear reports the same for the login at the schema registry.
func (c Config) RegistryInClear() bool {
	secret := c.SchemaRegistryToken.IsSet() || c.SchemaRegistryPassword.IsSet()
	return secret && slices.ContainsFunc(c.SchemaRegistry, func(u string) bool {
		_, secure := illegalURL(u)
		return !secure
	})
}

// validateSASL refuses an incomplete login, and settings that the chosen mechanism ignores:
// whoever set one expects an effect.
func (c *Config) validateSASL(f *faults) {
	if !f.read(keyMechanism, keyPasswordFile, keyClientSecretFile) {
		return
	}
	byPassword := []SASLMechanism{Plain, ScramSHA256, ScramSHA512}
	byToken := []SASLMechanism{OAuthBearer}
	var orphan string
	for _, s := range []struct {
		key string
		set bool
		of  []SASLMechanism
	}{
		{keyUsername, c.SASLUsername != "", byPassword},
		{keyPassword, c.SASLPassword.IsSet(), byPassword},
		{keyTokenFile, c.SASLTokenFile != "", byToken},
		{keyTokenURL, c.SASLTokenURL != "", byToken},
		{keyClientID, c.SASLClientID != "", byToken},
		{keyClientSecret, c.SASLClientSecret.IsSet(), byToken},
		{keyScopes, len(c.SASLScopes) > 0, byToken},
		{keyTokenCAFile, c.SASLTokenCAFile != "", byToken},
		{keyExtensions, len(c.SASLExtensions) > 0, byToken},
	} {
		switch {
		case !s.set || slices.Contains(s.of, c.SASLMechanism):
		case c.SASLMechanism != NoSASL:
			f.add(s.key, fmt.Sprintf("has no effect with %s=%s", keyMechanism, c.SASLMechanism), "it is for "+mechanisms(s.of))
		case orphan == "":
			orphan = s.key
		}
	}
	if orphan != "" {
		f.add(keyMechanism, "not set, but "+orphan+" is", "known: "+mechanisms(allMechanisms))
	}
	switch c.SASLMechanism {
	case Plain, ScramSHA256, ScramSHA512:
		needed(f, keyUsername, c.SASLUsername != "", keyMechanism, "")
		needed(f, keyPassword, c.SASLPassword.IsSet(), keyMechanism, "set it, or "+keyPasswordFile)
	case OAuthBearer:
		c.validateToken(f)
	case AWSMSKIAM:
		needed(f, keyAWSAccessKey, c.aws.accessKey != "", keyMechanism, "the credentials are those of AWS's own variables")
		needed(f, keyAWSSecretKey, c.aws.secretKey.IsSet(), keyMechanism, "the credentials are those of AWS's own variables")
		for _, of := range [][2]string{{keyAWSAccessKey, c.aws.accessKey}, {keyAWSSecretKey, c.aws.secretKey.Reveal()}, {keyAWSSessionToken, c.aws.sessionToken.Reveal()}} {
			if p, wrong := around(of[1], false); wrong { // they have no quotes of their own
				f.add(of[0], p.text, p.hint)
			}
		}
		if f.read(keyTLS) && !c.TLS {
			f.add(keyMechanism, fmt.Sprintf("%s without TLS", c.SASLMechanism), "set "+keyTLS+"=true")
		}
	}
}

func needed(f *faults, key string, set bool, because, hint string) {
	if !set {
		f.add(key, "not set, but "+because+" is", hint)
	}
}

func mechanisms(all []SASLMechanism) string {
	words := make([]string, len(all))
	for i, m := range all {
		words[i] = string(m)
	}
	return strings.Join(words, ", ")
}

// validateToken checks that a token comes from exactly one place.
func (c *Config) validateToken(f *faults) {
	switch {
	case c.SASLTokenFile != "" && c.SASLTokenURL != "":
		f.add(keyTokenURL, "set together with "+keyTokenFile, "set one of them")
	case c.SASLTokenFile != "":
		if _, err := readSecret(c.SASLTokenFile); err != nil {
			f.add(keyTokenFile, err.Error(), "")
		}
		for _, s := range []struct {
			key string
			set bool
		}{
			{keyClientID, c.SASLClientID != ""},
			{keyClientSecret, c.SASLClientSecret.IsSet()},
			{keyScopes, len(c.SASLScopes) > 0},
			{keyTokenCAFile, c.SASLTokenCAFile != ""},
		} {
			if s.set {
				f.add(s.key, "has no effect with "+keyTokenFile, "it is for "+keyTokenURL)
			}
		}
	case c.SASLTokenURL == "":
		f.add(keyTokenFile, "not set, but "+keyMechanism+" is", "set it, or "+keyTokenURL)
	default:
		if why, secure := illegalURL(c.SASLTokenURL); why != "" {
			f.add(keyTokenURL, why, "like https://login.example.com/oauth2/token; id and secret have settings of their own")
		} else if !secure {
			f.add(keyTokenURL, "the secret would go there unencrypted", "use https://")
		}
		needed(f, keyClientID, c.SASLClientID != "", keyTokenURL, "")
		needed(f, keyClientSecret, c.SASLClientSecret.IsSet(), keyTokenURL, "set it, or "+keyClientSecretFile)
		c.tokenTLS().validate(f)
	}
	for _, e := range c.SASLExtensions {
		if key, value, ok := strings.Cut(e, "="); !ok || key == "" || value == "" {
			f.add(keyExtensions, fmt.Sprintf("%q is not KEY=VALUE", e), "like logicalCluster=lkc-123")
		}
	}
}
