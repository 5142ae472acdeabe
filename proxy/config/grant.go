package config

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// grantTimeout is how long the authorization server may take to issue a token. A broker
// waits meanwhile, with an open connection.
const grantTimeout = 5 * time.Second

// grant asks an authorization server for tokens, with the client credentials
// grant of OAuth 2. One token serves for all connections until it is about to
// expire.
type grant struct {
	url, id string
	secret  *reread[Secret]
	scopes  []string
	web     *http.Client

	mu    sync.Mutex // also keeps all but one from asking
	last  *oauth2.Token
	style oauth2.AuthStyle // in which the secret was taken
}

// TokenError says that there is no token to log in with.
type TokenError struct {
	Refused bool // the server has refused to issue one; retrying does not help
	err     error
}

// Error says which server was asked and how it failed. It holds no secret.
func (e *TokenError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.err }

func (c Config) grant(warn func(error)) (*grant, error) {
	dial, proxied, err := c.tokenTLS().dialer(warn)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialTLSContext, transport.TLSClientConfig = dial, proxied
	return &grant{
		url: c.SASLTokenURL, id: c.SASLClientID, scopes: c.SASLScopes,
		secret: secretOf(c.SASLClientSecret, c.SASLClientSecretFile, warn),
		web: &http.Client{
			Transport: whole{transport}, Timeout: grantTimeout,
			// A token endpoint has no reason to send us elsewhere with the secret.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func (g *grant) token(ctx context.Context) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last.Valid() {
		return g.last.AccessToken, nil
	}
	secret, err := g.secret.get()
	if err != nil {
		return "", err
	}
	g.last, err = g.ask(context.WithValue(ctx, oauth2.HTTPClient, g.web), secret)
	if err != nil {
		return "", g.explain(err, secret)
	}
	return g.last.AccessToken, nil
}

// ask sends the secret in the header, as every server has to accept it (RFC 6749, section
// 2.3.1), and if that is refused, in the body. It remembers which one was accepted: the
// library would try both each time, and some servers lock an account after repeated
// refusals. The library would also try the other one when there was no answer, and take the
// refusal of that for the server's answer.
func (g *grant) ask(ctx context.Context, secret Secret) (*oauth2.Token, error) {
	asked := clientcredentials.Config{
		ClientID: g.id, ClientSecret: secret.Reveal(), TokenURL: g.url, Scopes: g.scopes,
		AuthStyle: cmp.Or(g.style, oauth2.AuthStyleInHeader),
	}
	token, err := asked.Token(ctx)
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refuses(answer) && g.style == oauth2.AuthStyleAutoDetect {
		asked.AuthStyle = oauth2.AuthStyleInParams
		token, err = asked.Token(ctx)
	}
	if err == nil {
		g.style = asked.AuthStyle
	}
	return token, err
}

// refuses reports whether an answer is final. A server that is failing, or that limits
// requests, may issue a token later; some refuse with status 200.
func refuses(answer *oauth2.RetrieveError) bool {
	status := answer.Response.StatusCode
	return status/100 != 5 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
}

// whole reads an answer to its end before it passes it on, so that one that is cut off
// counts as a network error, and not as an answer of the server.
type whole struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w whole) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	const most = 1 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// forget drops a token that the brokers refuse: it may have been revoked.
func (g *grant) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = nil
}

// explain keeps of the server's answer only the fields that the standard defines for error
// messages, with the secret masked.
func (g *grant) explain(err error, secret Secret) error {
	doing := "ask " + g.url + " for a token"
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok && answer.Response != nil {
		why := short(strings.ReplaceAll(answer.ErrorCode+" "+answer.ErrorDescription, secret.Reveal(), redacted))
		if why == "" {
			why = "no reason given"
		}
		return &TokenError{refuses(answer), fmt.Errorf("%s: status %d: %s", doing, answer.Response.StatusCode, why)}
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return &TokenError{false, fmt.Errorf("%s: %w", doing, failed.Err)}
	}
	return &TokenError{true, fmt.Errorf("%s: the answer has no token", doing)}
}
