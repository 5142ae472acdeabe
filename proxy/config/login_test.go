package config

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sasl"
)

// loginOf returns how a configuration logs in.
func loginOf(t *testing.T, warn func(error), vars ...string) sasl.Mechanism {
	t.Helper()
	m, err := mustLoad(t, vars...).login(warn)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// says returns what a mechanism sends first.
func says(t *testing.T, m sasl.Mechanism) (sasl.Session, string) {
	t.Helper()
	session, first, err := m.Authenticate(t.Context(), "b-1.x.kafka.eu-west-1.amazonaws.com:9098")
	if err != nil {
		t.Fatal(err)
	}
	return session, string(first)
}

func TestTokenFromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, []byte("one\n"))
	m := loginOf(t, func(err error) { t.Error(err) }, "SASL_MECHANISM=oauthbearer", "SASL_TOKEN_FILE="+file, "SASL_EXTENSIONS=logicalCluster=lkc-1,pool=p=1")
	if m.Name() != "OAUTHBEARER" {
		t.Errorf("mechanism %s", m.Name())
	}
	if _, first := says(t, m); first != "n,,\x01auth=Bearer one\x01logicalCluster=lkc-1\x01pool=p=1\x01\x01" {
		t.Errorf("%q", first)
	}
	write(t, file, []byte("two"))
	session, first := says(t, m)
	if !strings.Contains(first, "Bearer two\x01") {
		t.Errorf("renewed: %q", first)
	}
	if done, more, err := session.Challenge(nil); !done || more != nil || err != nil {
		t.Errorf("accepted: %v, %q, %v", done, more, err)
	}
	for answer, want := range map[string]string{
		`{"status":"invalid_token","scope":"x"}`:         "the token is refused: invalid_token",
		`nonsense`:                                       "the token is refused: no reason given",
		`{"status":"` + strings.Repeat("x", 9999) + `"}`: "xxx...",
	} {
		_, _, err := session.Challenge([]byte(answer))
		if !errors.Is(err, kerr.SaslAuthenticationFailed) || !strings.HasSuffix(err.Error(), want) || len(err.Error()) > 500 {
			t.Errorf("%.50s: %v", answer, err)
		}
	}
}

// authorization is a server that gives out tokens.
type authorization struct {
	*httptest.Server
	ca     string
	asked  int
	inBody bool // takes the secret there only
	secret string
	answer func(http.ResponseWriter)
}

func newAuthorization(t *testing.T) *authorization {
	a := &authorization{secret: canary, ca: filepath.Join(t.TempDir(), "ca")}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked++
		id, secret, inHeader := r.BasicAuth()
		if a.inBody || !inHeader {
			id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
		}
		w.Header().Set("Content-Type", "application/json")
		switch {
		case a.answer != nil:
			a.answer(w)
		case r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka other" || id != "tidemark" || secret != a.secret:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"%s is not the secret of %s"}`, secret, id)
		default:
			fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, a.asked)
		}
	}))
	t.Cleanup(a.Close)
	write(t, a.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))
	return a
}

func (a *authorization) vars(more ...string) []string {
	return append([]string{
		"SASL_MECHANISM=OAUTHBEARER", "SASL_TOKEN_URL=" + a.URL + "/token", "SASL_TOKEN_CA_FILE=" + a.ca,
		"SASL_CLIENT_ID=tidemark", "SASL_SCOPES=kafka,other",
	}, more...)
}

// A token is asked for once, and again when the brokers refuse it; the secret may be
// renewed.
func TestTokenFromServer(t *testing.T) {
	a := newAuthorization(t)
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, []byte(canary))
	m := loginOf(t, func(err error) { t.Error(err) }, a.vars("SASL_CLIENT_SECRET_FILE="+file)...)
	for range 2 {
		if _, first := says(t, m); first != "n,,\x01auth=Bearer token-1\x01\x01" {
			t.Errorf("%q", first)
		}
	}
	a.secret = "renewed"
	write(t, file, []byte("renewed"))
	session, _ := says(t, m)
	if _, _, err := session.Challenge([]byte(`{"status":"invalid_token"}`)); err == nil {
		t.Error("a refused token was taken for accepted")
	}
	if _, first := says(t, m); first != "n,,\x01auth=Bearer token-2\x01\x01" || a.asked != 2 {
		t.Errorf("%q, asked %d times", first, a.asked)
	}
}

// A server that takes the secret in the body only refuses it in the header once.
func TestTokenFromServerByBody(t *testing.T) {
	a := newAuthorization(t)
	a.inBody = true
	m := loginOf(t, func(err error) { t.Error(err) }, a.vars("SASL_CLIENT_SECRET="+canary)...)
	for i := range 2 {
		session, first := says(t, m)
		if want := fmt.Sprintf("n,,\x01auth=Bearer token-%d\x01\x01", i+2); first != want || a.asked != i+2 {
			t.Errorf("%q after %d questions", first, a.asked)
		}
		_, _, _ = session.Challenge([]byte(`{"status":"invalid_token"}`))
	}
}

// The authorities are those of the file through a proxy as well.
func TestTokenThroughProxy(t *testing.T) {
	a := newAuthorization(t)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(there, here); there.Close() }()
		_, _ = io.Copy(here, there)
		here.Close()
	}))
	defer proxy.Close()
	for _, ca := range []string{a.ca, newAuthority(t).file} {
		g, err := mustLoad(t, a.vars("SASL_CLIENT_SECRET="+canary, "SASL_TOKEN_CA_FILE="+ca)...).grant(nil)
		if err != nil {
			t.Fatal(err)
		}
		through, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		g.web.Transport.(whole).RoundTripper.(*http.Transport).Proxy = http.ProxyURL(through)
		if _, err := g.token(t.Context()); (err == nil) != (ca == a.ca) {
			t.Errorf("with %s: %v", ca, err)
		}
		g.web.CloseIdleConnections()
	}
}

// Whatever the server does instead of giving a token is told, and for how long it
// will last, and the secret never.
func TestNoTokenFromServer(t *testing.T) {
	answers := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	silent := true
	aborts := func(w http.ResponseWriter) {
		if silent {
			silent = false
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
	breaksOff := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, `{"access_token":"`)
	}
	for _, test := range []struct {
		answer  func(http.ResponseWriter)
		vars    []string
		refused bool
		want    string
	}{
		{nil, []string{"SASL_CLIENT_SECRET=" + canary + "-wrong"}, true, "status 401: invalid_client *** is not the secret of tidemark"},
		{answers(500, canary), nil, false, "status 500: no reason given"},
		{answers(429, `{"error":"slow_down"}`), nil, false, "status 429: slow_down"},
		{answers(302, ""), nil, true, "status 302"},
		{answers(200, `{"token_type":"Bearer"}`), nil, true, "the answer has no token"},
		{answers(200, canary), nil, true, "the answer has no token"},
		{answers(200, `{"error":"invalid_client"}`), nil, true, "status 200: invalid_client"},
		{breaksOff, nil, false, "unexpected EOF"},
		{aborts, nil, false, "EOF"},
		{nil, []string{"SASL_TOKEN_CA_FILE="}, false, "certificate signed by unknown authority"},
		{nil, []string{"SASL_TOKEN_URL=https://127.0.0.1:1/token"}, false, "connection refused"},
	} {
		a := newAuthorization(t)
		a.answer = test.answer
		m := loginOf(t, func(err error) { t.Error(err) }, append(a.vars("SASL_CLIENT_SECRET="+canary), test.vars...)...)
		_, _, err := m.Authenticate(t.Context(), "b:9092")
		token, ok := errors.AsType[*TokenError](err)
		if !ok || token.Refused != test.refused || !strings.Contains(err.Error(), test.want) {
			t.Errorf("refused %v: %v, want %v: %s", ok && token.Refused, err, test.refused, test.want)
		}
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, canary) {
			t.Errorf("%s", text)
		}
	}
}

// The signature is the client's; no broker here can check it.
func TestAWS(t *testing.T) {
	vars := []string{
		"TIDEMARK_TOPICS=orders", "TIDEMARK_INSTANCE=i", "TIDEMARK_TLS=true", "TIDEMARK_SASL_MECHANISM=AWS_MSK_IAM",
		"AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=" + canary, "AWS_SESSION_TOKEN=st",
	}
	c, err := Load(vars)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.login(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, first := says(t, m)
	var sent map[string]string
	if err := json.Unmarshal([]byte(first), &sent); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(sent["x-amz-credential"], "AKIA/") || !strings.Contains(sent["x-amz-credential"], "/eu-west-1/kafka-cluster/") || sent["x-amz-security-token"] != "st" || sent["user-agent"] != "tidemark" {
		t.Errorf("%v", sent)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, first); strings.Contains(text, canary) {
		t.Error("the secret key is printed")
	}
}

func TestPrincipal(t *testing.T) {
	a := newAuthority(t)
	subject := a.cert.Subject
	subject.CommonName, subject.Organization, subject.OrganizationalUnit = "tide, mark", []string{"Example"}, []string{"Billing"}
	cert, key, _ := a.issue(t, "client", &x509.Certificate{SerialNumber: a.cert.SerialNumber, Subject: subject})
	subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "example"}}
	inDomain, domainKey, _ := a.issue(t, "domain", &x509.Certificate{SerialNumber: a.cert.SerialNumber, Subject: subject})
	token := filepath.Join(t.TempDir(), "token")
	tls := []string{"TLS=true", "TLS_CA_FILE=" + a.file}
	for _, test := range []struct {
		vars []string
		want string
	}{
		{nil, "ANONYMOUS"},
		{tls, "ANONYMOUS"},
		{append(tls, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key), `CN=tide\, mark,OU=Billing,O=Example`},
		{append(tls, "TLS_CERT_FILE="+inDomain, "TLS_KEY_FILE="+domainKey), ""}, // to brokers DC=example, to Go a number
		{[]string{"SASL_MECHANISM=PLAIN", "SASL_USERNAME=u", "SASL_PASSWORD=p"}, "u"},
		{[]string{"SASL_MECHANISM=OAUTHBEARER", "SASL_TOKEN_FILE=" + token}, "svc"},
	} {
		write(t, token, []byte("x."+base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"svc"}`))+"."))
		if got := mustLoad(t, test.vars...).Principal(); got != test.want {
			t.Errorf("%v: %q, want %q", test.vars, got, test.want)
		}
		write(t, token, []byte("opaque"))
		if test.want == "svc" && mustLoad(t, test.vars...).Principal() != "" {
			t.Error("a principal out of nothing")
		}
	}
}
