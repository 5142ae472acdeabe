package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// liveTimeout is how long a live process may take to answer.
const liveTimeout = 2 * time.Second

func newCheckCommand() *cobra.Command {
	var live bool
	cmd := &cobra.Command{
		Use:   "check --live",
		Short: "Check whether the Tidemark on this machine is alive",
		Long: `Ask the Tidemark that runs on this machine, with the same configuration, whether it
lives: by its admin port (TIDEMARK_ADMIN). Kafka is not asked. It is what the health
check of the container image does.

Exit code 0: it lives. 3: it does not answer, or not as it should. 2: it cannot be
asked.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !live {
				return &exitError{
					exitUsage, errors.New("check needs a flag that says what to check"),
					"tidemark check --live asks the Tidemark that runs on this machine whether it lives; " +
						"for the settings, see tidemark config; topics and rights are checked by tidemark run when it starts",
				}
			}
			return checkLive(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "whether the process answers")
	return cmd
}

func checkLive(ctx context.Context) error {
	address, secured, err := config.AdminPort(os.Environ())
	if err != nil {
		return err
	}
	if address == "" {
		return &exitError{exitUsage, errors.New("cannot check: the admin port is off"), "set TIDEMARK_ADMIN, for instance to :9840"}
	}
	url := liveURL(address, secured)
	if err := askLive(ctx, url); err != nil {
		return &exitError{exitNotHeld, fmt.Errorf("ask %s: %w", url, err), liveHint(err)}
	}
	return nil
}

// liveURL is the URL of the liveness check. A port that listens on all addresses listens on
// the loopback address too.
func liveURL(address config.AdminAddress, secured bool) string {
	scheme := "http"
	if secured {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(string(address))
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/livez"
}

func askLive(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	// The certificate is for clients on other machines, which connect by name. Nothing
	// secret is sent here, and an impostor would have to be on this machine.
	line := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}
	defer line.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: line}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	if resp.StatusCode != http.StatusOK || strings.TrimSpace(string(said)) != "alive" {
		return fmt.Errorf("%s: %w", resp.Status, errNotTidemark)
	}
	return nil
}

// errNotTidemark says that the admin port belongs to another program, whose pages are of
// no use here.
var errNotTidemark = errors.New("this is not how a Tidemark answers")

func liveHint(err error) string {
	switch {
	case errors.Is(err, errNotTidemark):
		return "another program may have that port: TIDEMARK_ADMIN and TIDEMARK_ADMIN_TLS_CERT_FILE have to be as in the run that is asked"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "does `tidemark run` run on this machine, in the same container, and is TIDEMARK_ADMIN as it is there?"
	case errors.Is(err, context.DeadlineExceeded):
		return "it runs and does not answer, or another program has that port: see its log"
	}
	return ""
}
