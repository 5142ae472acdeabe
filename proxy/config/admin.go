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

// AdminPort returns the address of the admin port of a process with this environment, and
// whether it speaks TLS. It ignores all other settings: a running process keeps what it has
// loaded, and is not unhealthy because one of its files is just being renewed. The error is
// an *Error.
func AdminPort(environ []string) (address AdminAddress, secured bool, err error) {
	vars := env.ToMap(environ)
	var c Config
	f := newFaults()
	f.parsing(env.ParseWithOptions(&c, env.Options{Environment: map[string]string{keyAdmin: vars[keyAdmin]}, Prefix: Prefix, FuncMap: parsers}))
	return c.Admin, vars[keyAdminTLSCertFile] != "", f.err()
}

// WithoutAdmin returns an environment without the settings of the admin port, for a command
// that opens none. It often shares the environment of a sidecar, but not the files that only
// the sidecar needs.
func WithoutAdmin(environ []string) []string {
	of := []string{keyAdmin, keyAdminTLSCertFile, keyAdminTLSKeyFile, keyAdminUsername, keyAdminPassword, keyAdminPasswordFile}
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return slices.Contains(of, key)
	})
}

// AdminTLS returns the TLS configuration of the admin port; nil: no TLS. The certificate is
// loaded again when its files change, so it can be renewed without a restart. If they cannot
// be used, warn is called, and the certificate loaded before stays in use, so that health
// checks are answered.
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
