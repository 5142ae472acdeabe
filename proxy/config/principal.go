package config

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

// Principal returns the principal that brokers with default settings give us: the user
// name, the subject of the token, or the subject of the certificate. It is empty where only
// the brokers can know.
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
	return distinguishedName(cert.Leaf.RawSubject)
}

// distinguishedName writes a subject as brokers do (RFC 2253), and returns nothing
// where they would write it in another way than Go: mail addresses and serial numbers
// in hexadecimal, domain components in words, more characters with a backslash.
func distinguishedName(raw []byte) string {
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &subject); err != nil || len(rest) > 0 {
		return ""
	}
	for _, parts := range subject {
		for _, part := range parts {
			value, text := part.Value.(string)
			if !slices.ContainsFunc(alike, part.Type.Equal) || !text || strings.ContainsAny(value, "=#\x00") {
				return ""
			}
		}
	}
	return subject.String()
}

// alike are the attributes that brokers and Go call by the same name: CN, C, L, ST,
// STREET, O and OU.
var alike = []asn1.ObjectIdentifier{{2, 5, 4, 3}, {2, 5, 4, 6}, {2, 5, 4, 7}, {2, 5, 4, 8}, {2, 5, 4, 9}, {2, 5, 4, 10}, {2, 5, 4, 11}}

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
