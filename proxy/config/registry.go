package config

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tidemarkhq/tidemark/proxy/registry"
)

// RegistryOptions returns where the schema registry is, who is asking, and how. It
// treats renewed files as ClientOpts does. The error names the file that cannot be
// used, and why.
func (c Config) RegistryOptions(warn func(error)) (registry.Options, error) {
	dial, proxied, err := c.registryTLS().dialer(warn)
	if err != nil {
		return registry.Options{}, err
	}
	o := registry.Options{URLs: c.SchemaRegistry, DialTLS: dial, ProxiedTLS: proxied, Compile: c.EventTime.Compile, Unusable: c.EventTime.Unusable}
	token := secretOf(c.SchemaRegistryToken, c.SchemaRegistryTokenFile, warn)
	password := secretOf(c.SchemaRegistryPassword, c.SchemaRegistryPasswordFile, warn)
	switch {
	case c.SchemaRegistryToken.IsSet():
		o.Auth = append(o.Auth, sr.PreReq(func(req *http.Request) error {
			now, err := token.get()
			req.Header.Set("Authorization", "Bearer "+now.Reveal())
			return err
		}))
	case c.SchemaRegistryUsername != "":
		o.Auth = append(o.Auth, sr.PreReq(func(req *http.Request) error {
			now, err := password.get()
			req.SetBasicAuth(c.SchemaRegistryUsername, now.Reveal())
			return err
		}))
	}
	return o, nil
}

func (c *Config) validateRegistry(f *faults) {
	if !f.read(keyRegistry, keyRegistryPasswordFile, keyRegistryTokenFile) {
		return
	}
	on := len(c.SchemaRegistry) > 0
	if !on && f.read(keyEventTime) && c.EventTime.NeedsSchemas() {
		f.add(keyRegistry, "not set, but a source of "+keyEventTime+" needs schemas", "like "+keyRegistry+"=http://schema-registry:8081")
	}
	secure := on
	for i, u := range c.SchemaRegistry {
		if i == 0 && f.read(keyEventTime) {
			c.EventTime = c.EventTime.Asking(registry.KindOf(u))
		}
		if registry.KindOf(u) != registry.KindOf(c.SchemaRegistry[0]) {
			f.add(keyRegistry, "the URLs are those of different APIs", "give all of them the same path, like /apis/registry/v2")
		}
		why, tls := illegalURL(u)
		if why != "" {
			f.add(keyRegistry, why, "like http://schema-registry:8081; user name and password have settings of their own")
		}
		secure = secure && tls
	}
	for _, s := range [][2]string{
		{keyRegistryUsername, c.SchemaRegistryUsername},
		{keyRegistryPassword, c.SchemaRegistryPassword.String()},
		{keyRegistryToken, c.SchemaRegistryToken.String()},
	} {
		if s[1] != "" && !on {
			f.add(s[0], "has no effect without a schema registry", "set "+keyRegistry)
		}
	}
	for _, s := range c.registryTLS().settings() {
		if s[1] != "" && !secure {
			f.add(s[0], "has no effect without TLS", "use https:// in "+keyRegistry)
		}
	}
	if secure {
		c.registryTLS().validate(f)
	}
	user, password := c.SchemaRegistryUsername != "", c.SchemaRegistryPassword.IsSet()
	switch {
	case c.SchemaRegistryToken.IsSet() && (user || password):
		f.add(keyRegistryToken, "set together with a user name or a password", "set one of them")
	case user && !password:
		f.add(keyRegistryPassword, "not set, but "+keyRegistryUsername+" is", "set it, or "+keyRegistryPasswordFile)
	case password && !user:
		f.add(keyRegistryUsername, "not set, but "+keyRegistryPassword+" is", "")
	}
}

// illegalURL says what is wrong with the URL of a registry, or returns nothing. It
// does not quote what may hold a password.
func illegalURL(text string) (why string, secure bool) {
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@"):
		return "a user name or a password is written into a URL", true
	case strings.ContainsAny(text, "?#"):
		return "a query or a fragment is written into a URL", true
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("%q is not an http or https URL", text), true
	}
	return "", u.Scheme == "https"
}
