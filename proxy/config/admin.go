package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"
)

// AdminAddress is where health, status and metrics are served: host:port, or
// nothing for nowhere.
type AdminAddress string

const adminOff = "off"

// UnmarshalText reads host:port, with the host left out for all addresses, or "off".
func (a *AdminAddress) UnmarshalText(text []byte) error {
	if strings.EqualFold(string(text), adminOff) {
		*a = ""
		return nil
	}
	_, port, err := net.SplitHostPort(string(text))
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 {
		return problem{fmt.Sprintf("%q is not host:port", text), "like :9840 for all addresses, 127.0.0.1:9840 for this machine alone, or off"}
	}
	*a = AdminAddress(text)
	return nil
}

// String returns the address as UnmarshalText reads it.
func (a AdminAddress) String() string {
	if a == "" {
		return adminOff
	}
	return string(a)
}

// AdminPort returns where the admin port of a process with this environment is, and
// whether TLS is spoken there. Nothing else is looked at: a process that lives goes on
// with what it has read, and is not to be called sick because one of its files is just
// being renewed. The error is an *Error.
func AdminPort(environ []string) (address AdminAddress, secured bool, err error) {
	vars := env.ToMap(environ)
	var c Config
	f := newFaults()
	f.parsing(env.ParseWithOptions(&c, env.Options{Environment: map[string]string{keyAdmin: vars[keyAdmin]}, Prefix: Prefix, FuncMap: parsers}))
	return c.Admin, vars[keyAdminTLSCertFile] != "", f.err()
}

// WithoutAdmin returns an environment without what it says of the admin port, for a
// command that opens none. It often shares the environment of a sidecar, but not the
// files that only the sidecar needs.
func WithoutAdmin(environ []string) []string {
	of := []string{keyAdmin, keyAdminTLSCertFile, keyAdminTLSKeyFile, keyAdminUsername, keyAdminPassword, keyAdminPasswordFile}
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return slices.Contains(of, key)
	})
}

// AdminTLS returns how TLS is spoken at the admin port, nil if it is not. The
// certificate is read again when its files have changed, so that it can be renewed
// without a restart. If nothing can be made of them, warn is told, and what they were
// before stays in use: who asks whether the process lives is to get an answer.
func (c Config) AdminTLS(warn func(error)) *tls.Config {
	if c.AdminTLSCertFile == "" {
		return nil
	}
	cert := &reread[*tls.Certificate]{files: []string{c.AdminTLSCertFile, c.AdminTLSKeyFile}, from: c.adminCertificate, warn: warn}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.get() },
	}
}

func (c Config) adminCertificate() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.AdminTLSCertFile, c.AdminTLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", c.AdminTLSCertFile, c.AdminTLSKeyFile, err)
	}
	return &cert, nil
}

func (c *Config) validateAdmin(f *faults) {
	if !f.read(keyAdmin, keyAdminPasswordFile) {
		return
	}
	user, password := c.AdminUsername != "", c.AdminPassword.IsSet()
	if c.Admin == "" {
		for _, s := range [][2]string{
			{keyAdminTLSCertFile, c.AdminTLSCertFile},
			{keyAdminTLSKeyFile, c.AdminTLSKeyFile},
			{keyAdminUsername, c.AdminUsername},
			{keyAdminPassword, c.AdminPassword.String()},
		} {
			if s[1] != "" {
				f.add(s[0], "has no effect without the admin port", "set "+keyAdmin)
			}
		}
		return
	}
	switch cert, key := c.AdminTLSCertFile, c.AdminTLSKeyFile; {
	case cert != "" && key == "":
		f.add(keyAdminTLSKeyFile, "not set, but "+keyAdminTLSCertFile+" is", "a certificate needs its key")
	case cert == "" && key != "":
		f.add(keyAdminTLSCertFile, "not set, but "+keyAdminTLSKeyFile+" is", "a key needs its certificate")
	case cert != "":
		if _, err := c.adminCertificate(); err != nil {
			f.add(keyAdminTLSCertFile, err.Error(), "")
		}
	}
	switch {
	case user && !password:
		f.add(keyAdminPassword, "not set, but "+keyAdminUsername+" is", "set it, or "+keyAdminPasswordFile)
	case password && !user:
		f.add(keyAdminUsername, "not set, but "+keyAdminPassword+" is", "")
	}
}
