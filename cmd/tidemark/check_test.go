package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/proxy/config"
)

// The health check of the image holds for a process that answers, with and without
// TLS and a login, and not for one that is gone; a second process is told that the
// port is taken.
func TestCheckLive(t *testing.T) {
	cert, key := certificate(t)
	for name, env := range map[string][]string{
		"plain":   nil,
		"secured": {"TIDEMARK_ADMIN_TLS_CERT_FILE=" + cert, "TIDEMARK_ADMIN_TLS_KEY_FILE=" + key, "TIDEMARK_ADMIN_USERNAME=u", "TIDEMARK_ADMIN_PASSWORD=hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			env := append([]string{"TIDEMARK_TOPICS=orders", "TIDEMARK_ADMIN=" + freePort(t)}, env...)
			running, _ := start(t, "tidemark-polite", env...)
			expect(t, env, 0, "", "tidemark", "check", "--live")
			gone := append(slices.Clip(env), "TIDEMARK_SASL_MECHANISM=PLAIN", "TIDEMARK_SASL_USERNAME=me", "TIDEMARK_SASL_PASSWORD_FILE=/being/renewed")
			expect(t, gone, 0, "", "tidemark", "check", "--live")
			expect(t, env, 2, "hint: another process uses the port, perhaps another Tidemark: change TIDEMARK_ADMIN", "tidemark-polite")
			if err := running.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = running.Wait()
			expect(t, env, 3, "/livez: ", "tidemark", "check", "--live")
		})
	}
}

// Who is refused, or gets another program's answer, learns what to look at, and is not
// shown that program's pages.
func TestCheckLiveOfNobody(t *testing.T) {
	expect(t, []string{"TIDEMARK_ADMIN=" + freePort(t)}, 3, "hint: does `tidemark run` run on this machine", "tidemark", "check", "--live")
	for _, code := range []int{http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable} {
		stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, "<html>\n<h1>welcome</h1>\n</html>")
		}))
		env := []string{"TIDEMARK_ADMIN=" + stranger.Listener.Addr().String()}
		expect(t, env, 3, fmt.Sprintf("/livez: %d %s: this is not how a Tidemark answers\nhint: another program may have that port: TIDEMARK_ADMIN", code, http.StatusText(code)),
			"tidemark", "check", "--live")
		stranger.Close()
	}
}

// expect runs a command and checks its exit code and what it says.
func expect(t *testing.T, env []string, code int, says string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), says) || says == "" && len(out) > 0 {
		t.Errorf("%v: exit code %d, want %d with %q:\n%s", command, got, code, says, out)
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// certificate returns files with a certificate for another host, and its key.
func certificate(t *testing.T) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"tidemark.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, bytes []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return file("cert.pem", "CERTIFICATE", der), file("key.pem", "PRIVATE KEY", secret)
}

// A port that is open for all addresses is asked at that of this machine.
func TestLiveURL(t *testing.T) {
	for address, want := range map[string]string{
		":9840": "127.0.0.1:9840", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80",
		"10.0.0.1:80": "10.0.0.1:80", "[::1]:80": "[::1]:80", "localhost:80": "localhost:80",
	} {
		if got := liveURL(config.AdminAddress(address), false); got != fmt.Sprintf("http://%s/livez", want) {
			t.Errorf("%s is asked at %s", address, got)
		}
	}
}
