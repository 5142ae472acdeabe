package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/scan"
	"github.com/tidemarkhq/tidemark/emit/verify"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
	"github.com/tidemarkhq/tidemark/reorder"
)

// verifyCluster has a topic of three records, the last of them still held or
// not, and what came out. The configuration in the environment tells of it.
func verifyCluster(t *testing.T, held bool, ordered ...string) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "orders.ordered", "orders.late"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	t.Setenv("TIDEMARK_BROKERS", strings.Join(fake.ListenAddrs(), ","))
	t.Setenv("TIDEMARK_EVENT_TIME", "header:at")
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	record := func(topic, at string) *kgo.Record {
		return &kgo.Record{Topic: topic, Headers: []kgo.RecordHeader{{Key: "at", Value: []byte(at)}}, Timestamp: time.UnixMilli(1)}
	}
	var rs []*kgo.Record
	for _, at := range []string{"1000", "2000", "3000"} {
		rs = append(rs, record("orders", at))
	}
	for _, line := range ordered {
		f := strings.Fields(line) // event time, watermark, source offset
		r := record("orders.ordered", f[0])
		if len(f) > 1 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tidemark-watermark", Value: []byte(f[1])},
				kgo.RecordHeader{Key: "tidemark-source-offset", Value: []byte(f[2])})
		}
		rs = append(rs, r)
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(cl)
	topics, err := adm.ListTopics(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	times, err := timestamp.Parse("header:at")
	if err != nil {
		t.Fatal(err)
	}
	snap := reorder.Fresh(0, 0, 0)
	snap.Low, snap.Next, snap.W = 3, 3, 3e9
	if held {
		snap.W--
		snap.Low, snap.Count, snap.Sum = 2, 1, reorder.OffsetHash(2)
	}
	snap.Natural, snap.Max = snap.W, snap.W
	var os kadm.Offsets
	os.Add(kadm.Offset{Topic: "orders", At: snap.Low, LeaderEpoch: -1, Metadata: snap.Encode(reorder.Scope{
		Group: "mine", TopicID: topics["orders"].ID, Fingerprint: times.Fingerprint(),
	})})
	if err := adm.CommitAllOffsets(t.Context(), "mine", os); err != nil {
		t.Fatal(err)
	}
}

func runVerify(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newVerifyCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestVerifyCommandHolds(t *testing.T) {
	verifyCluster(t, false, "1000 1999 0", "2000 2999 1", "3000 2999 2")
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if err != nil {
		t.Fatal(err)
	}
	const want = `orders
  read     3
  ordered  3  watermarks 1970-01-01T00:00:01.999Z to 1970-01-01T00:00:02.999Z
  late     0
  held     0

HOLDS
`
	if out != want {
		t.Errorf("shown:\n%s", out)
	}
}

func TestVerifyCommandDoesNotHold(t *testing.T) {
	verifyCluster(t, false, "1000 2000 0", "2000 2999 1")
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitNotHeld || err.Error() != "" {
		t.Errorf("exit %d: %v", exitCode(err), err)
	}
	for _, line := range []string{
		"orders: 1 lost\n  partition 0  offset 2  in no output  read and committed (the group stands at 3), but in no output\n",
		"orders: 1 watermark-lie\n  partition 0  offset 1  orders.ordered 1  event time 2000 ms comes after watermark 2000\n",
		"\nDOES NOT HOLD\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}

	out, err = runVerify(t, "--topic", "orders", "--group", "mine", "--json")
	var got struct {
		Holds  bool
		Topics []struct {
			Topic      string
			Violations map[string]struct{ Total int }
			Partitions []struct{ Partition int }
		}
	}
	if jsonErr := json.Unmarshal([]byte(out), &got); jsonErr != nil || exitCode(err) != exitNotHeld {
		t.Fatalf("%v, exit %d:\n%s", jsonErr, exitCode(err), out)
	}
	if got.Holds || len(got.Topics) != 1 || got.Topics[0].Violations["lost"].Total != 1 || len(got.Topics[0].Partitions) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestVerifyCommandCannotTell: what may stand behind a stranger's transaction is neither
// lost nor there.
func TestVerifyCommandCannotTell(t *testing.T) {
	verifyCluster(t, false, "1000 1999 0")
	cl, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("TIDEMARK_BROKERS")), kgo.TransactionalID("stranger"))
	if err == nil {
		t.Cleanup(cl.Close)
		err = cl.BeginTransaction()
	}
	if err == nil {
		err = cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders.ordered"}).FirstErr()
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitFailed || !strings.Contains(hint(err), "describe-producers --topic orders.ordered --partition 0") {
		t.Errorf("exit %d: %v, hint %q", exitCode(err), err, hint(err))
	}
	for _, line := range []string{
		"  not judged  2  hidden: records read whose output may stand behind an open transaction\n",
		"orders.ordered partition 0: offsets [1, 2) are hidden by an open transaction\n  transactional id \"stranger\", from offset 1, last written at ",
		"\nCANNOT TELL: no violation in sight, but 2 records were not judged in full\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	out, _ = runVerify(t, "--topic", "orders", "--group", "mine", "--json")
	var got struct {
		Holds   bool
		Verdict string
		Topics  []struct {
			Unjudged map[string]int
			Hidden   []struct{ Topic string }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Holds || got.Verdict != "unknown" || got.Topics[0].Unjudged["hidden"] != 2 || got.Topics[0].Hidden[0].Topic != "orders.ordered" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestVerifyCommandWithoutHeaders: without source offsets, records are found by their bytes.
func TestVerifyCommandWithoutHeaders(t *testing.T) {
	verifyCluster(t, false, "1000", "2000", "3000")
	t.Setenv("TIDEMARK_HEADERS", "none")
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if err != nil || !strings.HasSuffix(out, "\n\nHOLDS\n") || strings.Contains(out, "bare") {
		t.Errorf("%v:\n%s", err, out)
	}
	verifyCluster(t, false, "1000", "3000")
	out, err = runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitNotHeld || !strings.Contains(out, "orders: 1 lost\n") {
		t.Errorf("one is lost: exit %d:\n%s", exitCode(err), out)
	}
}

// TestVerifyCommandFrom: event times that were made otherwise are not judged where the user
// says so, and a violation that they may explain says where.
func TestVerifyCommandFrom(t *testing.T) {
	verifyCluster(t, false, "1000 1100 0", "2000 1500 1", "3000 2999 2")
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitNotHeld || !strings.Contains(out, "orders: violations that another configuration would explain: 1, and all") || !strings.Contains(out, "\n  --from 0:2\n") {
		t.Errorf("exit %d:\n%s", exitCode(err), out)
	}
	for _, from := range []string{"0:2", "2", "1970-01-01T00:00:00.001Z"} {
		out, err = runVerify(t, "--topic", "orders", "--group", "mine", "--from", from)
		if from != "2" && from != "0:2" {
			if exitCode(err) != exitNotHeld { // all have that timestamp
				t.Errorf("--from %s: exit %d:\n%s", from, exitCode(err), out)
			}
			continue
		}
		if err != nil || !strings.Contains(out, "  not judged  2  before-from: ") || !strings.Contains(out, "\nHOLDS as far as it was judged: 2 records were not judged in full\n") {
			t.Errorf("--from %s: %v:\n%s", from, err, out)
		}
	}
	for _, from := range []string{"soon", "-1", "0:x", "epoch:", "x:1"} {
		if _, err = runVerify(t, "--topic", "orders", "--group", "mine", "--from", from); exitCode(err) != exitUsage {
			t.Errorf("--from %s: exit %d, %v", from, exitCode(err), err)
		}
	}
}

// TestVerifyCommandAsksForHeaders that TIDEMARK_HEADERS names.
func TestVerifyCommandAsksForHeaders(t *testing.T) {
	verifyCluster(t, false, "1000 1999 0", "2000 2999 1", "3000 2999 2")
	t.Setenv("TIDEMARK_HEADERS", "watermark,source-offset,event-time")
	out, err := runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitNotHeld || !strings.Contains(out, "orders: 3 missing-header\n") ||
		!strings.Contains(out, "tidemark-event-time, though there is room for it\n") {
		t.Errorf("exit %d:\n%s", exitCode(err), out)
	}
}

func TestVerifyCommandCannotCheck(t *testing.T) {
	verifyCluster(t, true, "1000 1999 0", "2000 2999 1")
	_, err := runVerify(t, "--topic", "orders", "--group", "nobody")
	if exitCode(err) != exitFailed || !strings.Contains(hint(err), "group") {
		t.Errorf("another group: exit %d, %v, hint %q", exitCode(err), err, hint(err))
	}
	t.Setenv("TIDEMARK_EVENT_TIME", "timestamp")
	_, err = runVerify(t, "--topic", "orders", "--group", "mine")
	if exitCode(err) != exitFailed || !strings.Contains(hint(err), "TIDEMARK_EVENT_TIME") {
		t.Errorf("other event times: exit %d, %v, hint %q", exitCode(err), err, hint(err))
	}
	for _, missing := range []struct{ topic, ordered, err, hint string }{
		{"oders", ".ordered", "verify: look up the source topic oders: it does not exist", "did you mean orders"},
		{"nothing-like-it", ".ordered", "verify: look up the source topic nothing-like-it: it does not exist", "check TIDEMARK_TOPICS"},
		{"orders", ".sorted", "verify: look up the ordered output orders.sorted: it does not exist", "`tidemark run` creates the outputs"},
	} {
		t.Setenv("TIDEMARK_ORDERED_SUFFIX", missing.ordered)
		if _, err = runVerify(t, "--topic", missing.topic, "--group", "mine"); exitCode(err) != exitFailed || err.Error() != missing.err || !strings.HasPrefix(hint(err), missing.hint) {
			t.Errorf("%+v: exit %d, %v, hint %q", missing, exitCode(err), err, hint(err))
		}
	}
	t.Setenv("TIDEMARK_ORDERED_SUFFIX", ".ordered")
	if _, err = runVerify(t); exitCode(err) != exitUsage {
		t.Errorf("without a topic: exit %d, %v", exitCode(err), err)
	}
}

// TestVerifyHints: whoever cannot verify is told what to do.
func TestVerifyHints(t *testing.T) {
	for err, want := range map[error]string{
		verify.ErrNoCommit:        "`tidemark position rebuild`",
		verify.ErrOtherTimes:      "`tidemark position new-epoch --all --from earliest`",
		verify.ErrNoIdentity:      "TIDEMARK_HEADER_PREFIX",
		verify.ErrPartitions:      "`tidemark run`",
		verify.ErrReset:           "verify again",
		scan.ErrDeleted:           "verify again",
		scan.ErrRemote:            "remote storage",
		scan.ErrShort:             "unclean election",
		reorder.ErrFingerprint:    "`tidemark position new-epoch`",
		reorder.ErrRecreated:      "`tidemark position new-epoch --from earliest`",
		reorder.ErrForeign:        "`tidemark position show`",
		reorder.ErrNewer:          "version",
		kerr.UnstableOffsetCommit: "kafka-transactions --bootstrap-server broker:9092 list",
	} {
		if got := verifyHint(config.Config{Brokers: []string{"broker:9092"}}, fmt.Errorf("read: %w", err)); !strings.Contains(got, want) {
			t.Errorf("%v: the hint is %q", err, got)
		}
	}
}
