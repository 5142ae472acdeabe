package fault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// Retrying does not help while the two ends disagree on TLS or the login. On first contact
// the process ends, because somebody is there to read why. Once a connection has worked,
// Tidemark retries: certificates, passwords and tokens get renewed, and not everywhere at
// the same moment.

// HandshakeHint returns how to fix a TLS handshake or login that failed; empty for any
// other error.
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

// tokenHint is the hint for errors of the authorization server.
func tokenHint(err *config.TokenError) string {
	switch {
	case err.Refused:
		return "the authorization server refuses to issue a token: check TIDEMARK_SASL_TOKEN_URL, TIDEMARK_SASL_CLIENT_ID, TIDEMARK_SASL_CLIENT_SECRET and TIDEMARK_SASL_SCOPES against its configuration"
	case certificateHint(err) != "":
		return "the authorization server's certificate is not trusted: TIDEMARK_SASL_TOKEN_CA_FILE must contain the authority that signed it"
	}
	return ""
}

// refusedToken reports whether the authorization server refused to issue a token.
func refusedToken(err error) bool {
	token, ok := errors.AsType[*config.TokenError](err)
	return ok && token.Refused
}

// certificateHint is the hint for a certificate of the broker that we do not accept.
func certificateHint(err error) string {
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the broker's certificate is for %s: use such a name in TIDEMARK_BROKERS and in the brokers' advertised.listeners, or set TIDEMARK_TLS_SERVER_NAME to the one to expect", namesOf(wrong.Certificate))
	}
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return "the broker's certificate is signed by an unknown authority: TIDEMARK_TLS_CA_FILE must contain it"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if c := invalid.Cert; time.Now().Before(c.NotBefore) {
			return "the broker's certificate is not valid before " + c.NotBefore.UTC().Format(time.RFC3339) + ": check the clock of this machine, and of the one that issued the certificate"
		}
		return "the broker's certificate expired at " + invalid.Cert.NotAfter.UTC().Format(time.RFC3339) + ": renew it; if that time has not come yet, set the clock of this machine"
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return "the broker's certificate fails verification: check it against TIDEMARK_TLS_CA_FILE and TIDEMARK_TLS_SERVER_NAME"
	}
	if errors.As(err, new(tls.RecordHeaderError)) {
		return "the server on this port does not speak TLS: use the port of the brokers' TLS listener, or set TIDEMARK_TLS=false"
	}
	return ""
}

// untrusted reports whether either end refused the other in the TLS handshake.
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

// alertHint is the hint for a TLS handshake that the broker broke off, by its alert.
func alertHint(err error) string {
	alert, ok := errors.AsType[*net.OpError](err)
	if !ok || alert.Op != "remote error" { // what crypto/tls calls an alert
		return ""
	}
	const ours = "TIDEMARK_TLS_CERT_FILE and TIDEMARK_TLS_KEY_FILE"
	for _, a := range []struct{ text, hint string }{
		{"certificate required", "the brokers ask for a client certificate: set " + ours},
		{"expired certificate", "the brokers say that the client certificate has expired: renew the files of " + ours},
		{"certificate", "the brokers reject the client certificate: it must be valid now and signed by an authority in their truststore; if none is configured, set " + ours},
		{"protocol version", "the brokers support neither TLS 1.2 nor 1.3: check their ssl.enabled.protocols"},
	} {
		if strings.Contains(alert.Err.Error(), a.text) {
			return a.hint
		}
	}
	return "the brokers abort the TLS handshake: if they require a client certificate, set " + ours + "; otherwise see their logs"
}

// loginHint is the hint for a SASL login that failed.
func loginHint(err error) string {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the brokers refuse the login: check TIDEMARK_SASL_MECHANISM, TIDEMARK_SASL_USERNAME and TIDEMARK_SASL_PASSWORD, or the token, against their configuration"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "the brokers do not offer this mechanism on this port: check TIDEMARK_SASL_MECHANISM against their sasl.enabled.mechanisms"
	case errors.Is(err, kerr.IllegalSaslState):
		return "the brokers expect no login on this port: use the port of their SASL listener, or unset TIDEMARK_SASL_MECHANISM"
	}
	return ""
}

// ReachHint returns what to check when a broker cannot be reached, or closes the connection
// without an answer. The cause may also be an outage, or a load balancer whose broker is down,
// so callers keep retrying.
func ReachHint(err error) string {
	if err == nil {
		return ""
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fmt.Sprintf("there is no host %q: check TIDEMARK_BROKERS, or advertised.listeners if it is not in there, and the DNS of this machine", dns.Name)
		}
		return fmt.Sprintf("the name %q cannot be resolved now: check the DNS of this machine; the name is from TIDEMARK_BROKERS or advertised.listeners", dns.Name)
	}
	const matches = "check that TIDEMARK_TLS matches the listener on this port, and whether it requires a login (TIDEMARK_SASL_MECHANISM)"
	switch text := err.Error(); {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at this address: check whether the brokers run, and host and port in TIDEMARK_BROKERS, or in advertised.listeners if the address is not in there"
	case strings.Contains(text, "appear to be a tls alert"):
		return "this port expects TLS: set TIDEMARK_TLS=true, or use the port of a listener without it in TIDEMARK_BROKERS"
	case strings.Contains(text, "beginning of an HTTP response"):
		return "this is an HTTP server and no Kafka broker: check the port in TIDEMARK_BROKERS"
	case strings.Contains(text, "invalid large response size"):
		return "what answers is no Kafka broker: check the port in TIDEMARK_BROKERS"
	case errors.As(err, new(*kgo.ErrFirstReadEOF)), errors.Is(err, syscall.ECONNRESET):
		return "if this persists, check the port in TIDEMARK_BROKERS, " + strings.TrimPrefix(matches, "check ")
	case TimedOut(err), errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing answers at this address: check host and port in TIDEMARK_BROKERS, firewalls on the way, and whether it is a Kafka broker; " + matches
	}
	return ""
}

// StaleFile reports a renewed certificate, key, authority or password file that cannot be
// used. The error names the file.
func (r *Reporter) StaleFile(err error) {
	r.Throttle(err.Error(), slog.LevelWarn, None, "cannot use a certificate or password file; keeping the one loaded before", "err", err)
}
