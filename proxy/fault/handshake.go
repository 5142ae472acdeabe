package fault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// A connection on which the two ends do not agree does not come about by trying
// again. At the first contact the process ends, for somebody is there to read why.
// Once there was an agreement it is asked for again: certificates, passwords and
// tokens are renewed, and not everywhere at the same moment.

// HandshakeHint returns what mends a connection on which the two ends do not agree, and
// nothing for any other error.
func HandshakeHint(err error) (hint string) {
	if token, ok := errors.AsType[*config.TokenError](err); ok {
		return tokenHint(token)
	}
	for _, find := range []func(error) string{certificateHint, alertHint, loginHint} {
		if hint := find(err); hint != "" {
			return hint
		}
	}
	return ""
}

// tokenHint is that with the server that gives out tokens.
func tokenHint(err *config.TokenError) string {
	switch {
	case err.Refused:
		return "the authorization server gives no token: compare TIDEMARK_SASL_TOKEN_URL, TIDEMARK_SASL_CLIENT_ID, TIDEMARK_SASL_CLIENT_SECRET and TIDEMARK_SASL_SCOPES with what it is set up with"
	case certificateHint(err) != "":
		return "the authorization server's certificate is not to be trusted: TIDEMARK_SASL_TOKEN_CA_FILE has to hold the authority that signed it"
	}
	return ""
}

// refusedToken reports whether a server has answered that it gives no token.
func refusedToken(err error) bool {
	token, ok := errors.AsType[*config.TokenError](err)
	return ok && token.Refused
}

// certificateHint is what we have against the broker's certificate.
func certificateHint(err error) string {
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the broker's certificate is for %s: address the brokers by such a name, in TIDEMARK_BROKERS and in their advertised.listeners, or say with TIDEMARK_TLS_SERVER_NAME which one to look for", namesOf(wrong.Certificate))
	}
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return "the broker's certificate is signed by nobody who is trusted here: TIDEMARK_TLS_CA_FILE has to hold the authority that signed it"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if c := invalid.Cert; time.Now().Before(c.NotBefore) {
			return "the broker's certificate is not valid before " + c.NotBefore.UTC().Format(time.RFC3339) + ": set the clock of this machine, or that of whoever made the certificate"
		}
		return "the broker's certificate expired at " + invalid.Cert.NotAfter.UTC().Format(time.RFC3339) + ": renew it; if that is still to come, set the clock of this machine"
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return "the broker's certificate does not pass: compare it with TIDEMARK_TLS_CA_FILE and TIDEMARK_TLS_SERVER_NAME"
	}
	if errors.As(err, new(tls.RecordHeaderError)) {
		return "what answers there does not speak TLS: take the port of the brokers' TLS listener, or TIDEMARK_TLS=false"
	}
	return ""
}

// untrusted reports whether the two ends do not agree on TLS.
func untrusted(err error) bool { return certificateHint(err) != "" || alertHint(err) != "" }

func namesOf(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}

// alertHint is what the broker has against our end, as far as its alert says.
func alertHint(err error) string {
	alert, ok := errors.AsType[*net.OpError](err)
	if !ok || alert.Op != "remote error" { // what crypto/tls calls an alert
		return ""
	}
	const ours = "TIDEMARK_TLS_CERT_FILE and TIDEMARK_TLS_KEY_FILE"
	for _, a := range []struct{ text, hint string }{
		{"certificate required", "the brokers ask for a client certificate: set " + ours},
		{"expired certificate", "the brokers say that the client certificate has expired: renew the files of " + ours},
		{"certificate", "the brokers do not accept the client certificate: it has to be valid now, and signed by an authority in their truststore; or, if there is none, set " + ours},
		{"protocol version", "the brokers speak no version of TLS from 1.2 on: see their ssl.enabled.protocols"},
	} {
		if strings.Contains(alert.Err.Error(), a.text) {
			return a.hint
		}
	}
	return "the brokers break off the TLS handshake: do they ask for a client certificate (" + ours + ")? else see their logs"
}

// loginHint is about SASL.
func loginHint(err error) string {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the brokers refuse the login: compare TIDEMARK_SASL_MECHANISM, TIDEMARK_SASL_USERNAME and TIDEMARK_SASL_PASSWORD, or the token, with what they are set up with"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "the brokers do not offer this mechanism at this port: compare TIDEMARK_SASL_MECHANISM with their sasl.enabled.mechanisms"
	case errors.Is(err, kerr.IllegalSaslState):
		return "the brokers expect no login at this port: take that of their SASL listener, or leave TIDEMARK_SASL_MECHANISM unset"
	}
	return ""
}

// EOFHint returns what may be behind a connection that ends without a word. It
// may as well be a load balancer whose broker is away, so nobody gives up for it.
func EOFHint(err error) string {
	switch {
	case errors.As(err, new(*kgo.ErrFirstReadEOF)), err != nil && strings.Contains(err.Error(), "appear to be a tls alert"):
		return "if it stays so: is TIDEMARK_TLS as the listener at this port is, and does it want a login (TIDEMARK_SASL_MECHANISM)?"
	}
	return ""
}

// StaleFile tells of files that were renewed with something that cannot be used.
func (r *Reporter) StaleFile(err error) {
	r.Throttle(err.Error(), slog.LevelWarn, None, "a file that connections are made with is of no use as it is; what it said before stays in use", "err", err)
}
