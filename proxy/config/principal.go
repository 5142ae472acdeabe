package config

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// Principal returns who the brokers take us for, as they are set up unless told
// otherwise: the user name, the subject of the token, the subject of the
// certificate. It returns nothing where only they can know.
func (c Config) Principal() string {
	switch c.SASLMechanism {
	case Plain, ScramSHA256, ScramSHA512:
		return c.SASLUsername
	case OAuthBearer:
		return c.tokenSubject()
	case AWSMSKIAM:
		return ""
	}
	if !c.TLS {
		return "ANONYMOUS"
	}
	cert, err := c.brokerTLS().certificate()
	if err != nil {
		return ""
	}
	if cert == nil {
		return "ANONYMOUS"
	}
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(cert.Leaf.RawSubject, &subject); err != nil || len(rest) > 0 {
		return ""
	}
	return subject.String()
}

// tokenSubject reads the subject out of a token in a file, if it is a JWT.
func (c Config) tokenSubject() string {
	if c.SASLTokenFile == "" {
		return ""
	}
	token, err := readSecret(c.SASLTokenFile)
	parts := strings.Split(token.Reveal(), ".")
	if err != nil || len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Subject
}
