package config

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// grantTimeout is how long a server may take to give out a token. A broker waits
// for it with an open connection.
const grantTimeout = 5 * time.Second

// grant asks an authorization server for tokens, with the client credentials
// grant of OAuth 2. One token serves for all connections until it is about to
// expire.
type grant struct {
	url, id string
	secret  *reread[Secret]
	scopes  []string
	web     *http.Client

	mu   sync.Mutex // also keeps all but one from asking
	last *oauth2.Token
}

// TokenError says that there is no token to log in with.
type TokenError struct {
	Refused bool // for good: the server has answered that it gives none
	err     error
}

// Error says which server was asked and what came of it. It holds no secret.
func (e *TokenError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.err }

func (c Config) grant(warn func(error)) (*grant, error) {
	dial, err := c.tokenTLS().dialer(warn)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialTLSContext = dial
	return &grant{
		url: c.SASLTokenURL, id: c.SASLClientID, scopes: c.SASLScopes,
		secret: secretOf(c.SASLClientSecret, c.SASLClientSecretFile, warn),
		web: &http.Client{
			Transport: transport, Timeout: grantTimeout,
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
	asked := clientcredentials.Config{ClientID: g.id, ClientSecret: secret.Reveal(), TokenURL: g.url, Scopes: g.scopes}
	g.last, err = asked.Token(context.WithValue(ctx, oauth2.HTTPClient, g.web))
	if err != nil {
		return "", g.explain(err, secret)
	}
	return g.last.AccessToken, nil
}

// forget drops a token that the brokers refuse: it may have been revoked.
func (g *grant) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = nil
}

// explain leaves out of an error what the server wrote and may be anything, but for
// what the standard has for people to read; and if the secret is in that, the secret.
func (g *grant) explain(err error, secret Secret) error {
	doing := "ask " + g.url + " for a token"
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok && answer.Response != nil {
		status := answer.Response.StatusCode
		why := short(strings.ReplaceAll(answer.ErrorCode+" "+answer.ErrorDescription, secret.Reveal(), redacted))
		if why == "" {
			why = "no reason given"
		}
		// A server that is in trouble, or asked too often, may yet give one.
		refused := status/100 == 3 || status/100 == 4 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout
		return &TokenError{refused, fmt.Errorf("%s: status %d: %s", doing, status, why)}
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return &TokenError{false, fmt.Errorf("%s: %w", doing, failed.Err)}
	}
	return &TokenError{true, fmt.Errorf("%s: the answer holds none", doing)}
}
