package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func runPositionCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newPositionCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// The commands of docs/starting-over.md, one after the other: what is shown and saved before
// an offset is reset by hand, restored after, made again after another reset, and begun anew.
func TestPositionCommands(t *testing.T) {
	verifyCluster(t, true, "1000 1999 0", "2000 2998 1")
	adm := positionAdmin(t)
	reset := func(at int64) {
		t.Helper()
		os := kadm.Offsets{}
		os.Add(kadm.Offset{Topic: "orders", At: at, LeaderEpoch: -1})
		if err := adm.CommitAllOffsets(t.Context(), "mine", os); err != nil {
			t.Fatal(err)
		}
	}
	committed := func() (int64, string) {
		t.Helper()
		all, err := adm.FetchOffsets(t.Context(), "mine")
		if err != nil {
			t.Fatal(err)
		}
		o, _ := all.Lookup("orders", 0)
		return o.At, o.Metadata
	}
	said := func(code int, words string, args ...string) {
		t.Helper()
		out, err := runPositionCommand(t, args...)
		if err != nil {
			out += err.Error() + "\n" + hint(err)
		}
		if exitCode(err) != code || !strings.Contains(out, words) {
			t.Errorf("%v: exit code %d, want %d, and %q in:\n%s", args, exitCode(err), code, words, out)
		}
	}
	at, text := committed()
	said(0, "orders/0", "show")
	said(0, "as now", "show")
	file := filepath.Join(t.TempDir(), "position.json")
	saved, err := runPositionCommand(t, "export")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}

	reset(1)
	said(exitNotHeld, "committed without metadata", "show")
	said(exitNotHeld, "\nhint: is TIDEMARK_GROUP the group that wrote them? If it is, ", "show")
	said(exitUsage, "add --yes", "restore", file)
	if now, _ := committed(); now != 1 {
		t.Errorf("unasked, it committed %d", now)
	}
	said(0, "committed; start", "restore", "--yes", file)
	if now, again := committed(); now != at || again != text {
		t.Errorf("restored: %d %s", now, again)
	}

	said(0, "nothing to do", "rebuild", "--yes")
	reset(3)
	said(exitUsage, "orders/0: ", "rebuild")
	said(0, "committed; start", "rebuild", "--yes")
	if now, _ := committed(); now != at {
		t.Errorf("rebuilt: %d, was %d", now, at)
	}

	said(0, "nothing to do", "new-epoch", "--yes")
	said(0, "what has come out of offsets 0 to 1 comes out a second time", "new-epoch", "--all", "--from", "earliest", "--yes")
	if now, again := committed(); now != 0 || !strings.Contains(again, ";e=1;") {
		t.Errorf("begun anew: %d %s", now, again)
	}
	said(exitUsage, "is not between", "new-epoch", "--partition", "orders/0", "--from", "99", "--yes")
	said(exitUsage, "has no partition 7", "new-epoch", "--partition", "orders/7", "--yes")
	said(exitUsage, "is of group", "restore", "--group", "other", "--yes", file)

	said(exitNotHeld, "nothing is committed, and the outputs are not empty", "show", "--group", "other")
	said(exitNotHeld, "`tidemark position new-epoch --from earliest`", "show", "--group", "other")
	said(exitUsage, "--from earliest", "new-epoch", "--group", "other", "--yes")
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "untouched"); err != nil {
		t.Fatal(err)
	}
	said(0, "untouched/0: nothing is committed and nothing has come out: a run begins here", "show", "--topic", "untouched")
	translated := kadm.Offsets{}
	translated.Add(kadm.Offset{Topic: "untouched", LeaderEpoch: -1})
	if err := adm.CommitAllOffsets(t.Context(), "mine", translated); err != nil {
		t.Fatal(err)
	}
	said(0, "untouched/0: the offset was committed without metadata and nothing has come out: a run begins here", "show", "--topic", "untouched")
	said(exitUsage, "look up the source topic oders: it does not exist\ndid you mean orders", "show", "--topic", "oders")
	said(exitUsage, "does not exist\ncheck TIDEMARK_TOPICS", "show", "--topic", "nothing-like-it")
}

// Where records are held that were judged by other event times, show says what `run` would.
func TestPositionOfOtherEventTimes(t *testing.T) {
	verifyCluster(t, true, "1000 1999 0", "2000 2998 1")
	positionAdmin(t)
	t.Setenv("TIDEMARK_EVENT_TIME", "timestamp")
	out, err := runPositionCommand(t, "show")
	if exitCode(err) != exitNotHeld || !strings.Contains(out, " others  ") || strings.Count(out, "\nhint: ") != 1 || !strings.Contains(out, "run `tidemark position new-epoch` and start again") {
		t.Errorf("exit %d:\n%s", exitCode(err), out)
	}
}

// A wrong unit, noticed when nothing is held any more: nothing keeps a run from going on, so
// each command has to say what else there is, until all is judged by the right unit.
func TestWrongUnitWithNothingHeld(t *testing.T) {
	verifyCluster(t, false, "1000 1999 0", "2000 2999 1", "3000 2999 2")
	positionAdmin(t)
	said := func(words string, args ...string) {
		t.Helper()
		out, err := runPositionCommand(t, args...)
		if err != nil || !strings.Contains(out, words) {
			t.Errorf("%v: %v, want %q in:\n%s", args, err, words, out)
		}
	}
	const again = "`tidemark position new-epoch --all --from earliest`"
	said(" as now ", "show")
	t.Setenv("TIDEMARK_EVENT_TIME", "header:at:unix-s")
	said(" others (nothing held) ", "show")
	_, err := runVerify(t)
	if exitCode(err) != exitFailed || !strings.Contains(hint(err), again) {
		t.Errorf("verify: %v, hint %q", err, hint(err))
	}
	said(again, "new-epoch", "--yes")
	said("committed; start", "new-epoch", "--all", "--from", "earliest", "--yes")
	said(" as now ", "show")
	if _, err := runVerify(t); err != nil {
		t.Errorf("verify, begun anew: %v", err)
	}
	file := filepath.Join(t.TempDir(), "position.json")
	if err := os.WriteFile(file, []byte(`{"version": 1, "group": "mine", "partitions": []}`), 0o600); err != nil {
		t.Fatal(err)
	}
	said("the export has no partition of these topics", "restore", "--yes", file)
}

func positionAdmin(t *testing.T) *kadm.Client {
	t.Helper()
	t.Setenv("TIDEMARK_GROUP", "mine")
	t.Setenv("TIDEMARK_TOPICS", "orders")
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Getenv("TIDEMARK_BROKERS"), ",")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// Only a yes is one.
func TestConfirmed(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, " YES ": true, "": false, "\n": false, "n\n": false, "yesterday\n": false} {
		if got := confirmed(strings.NewReader(answer), &bytes.Buffer{}); got != want {
			t.Errorf("%q: %v", answer, got)
		}
	}
}
