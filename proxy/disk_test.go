package proxy

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The brokers' disk is full: a broker whose log cannot be written shuts itself
// down. When there is room again and it is started, the sidecar goes on as if
// nothing had been. The test mounts a small disk and runs a broker of its own.
func TestKafkaDiskFull(t *testing.T) {
	if os.Getenv(brokersVar) == "" {
		t.Skip(brokersVar + " is not set: kfake has no disk")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("cannot mount a disk to fill: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	dir := filepath.Join(disk, "kafka")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	address := kafka(t, "start", "--port", port, "--dir", dir)
	t.Cleanup(func() { kafka(t, "stop", "--dir", dir) })

	onReal(t, address, func(t *testing.T, c *cluster) {
		topic := c.topic(1)
		base := time.Now().Add(-time.Hour)
		seconds := 0
		write := func() error {
			r := timed(topic, base, seconds, []byte("x"))
			err := c.cl.ProduceSync(c.ctx, r).FirstErr()
			if err == nil {
				seconds++
			}
			return err
		}
		for range 10 {
			c.wrote(write())
		}
		s := c.start(topic)
		c.awaitDrained(s)

		filler := filepath.Join(disk, "filler")
		fill(t, filler)
		full := time.Now()
		done := make(chan struct{})
		c.writers.Go(func() { // makes the broker notice, and waits for it to be back
			defer close(done)
			for range 2000 {
				c.wrote(write())
			}
		})
		c.await("the broker to give up", func() bool {
			conn, err := net.DialTimeout("tcp", strings.TrimSpace(address), time.Second)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		s.lives()
		t.Logf("the broker gave up after %v", time.Since(full).Round(time.Second))
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		kafka(t, "restart", "--dir", dir, "--broker", "1")
		<-done
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Read < int64(seconds) || r.Buffered != 0 {
			t.Errorf("%d read, %d buffered, %d were written", r.Read, r.Buffered, seconds)
		}
	})
}

// fill writes a file until there is no room.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for zeros := make([]byte, size); err == nil; {
			_, err = f.Write(zeros)
		}
		err = nil
	}
}

// kafka runs the script that runs a Kafka.
func kafka(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("../bench/kafka", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench/kafka %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(fmt.Sprintf("%s", out))
}
