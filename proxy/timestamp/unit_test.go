package timestamp

import "testing"

func TestTooSmall(t *testing.T) {
	for _, c := range []struct {
		spec   string
		factor int64
		what   string
		cure   string
	}{
		{"json:ts", 1000, "json:ts seems to have seconds, and is read as milliseconds", "stop, set TIDEMARK_EVENT_TIME=json:ts:unix-s, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"json:ts:unix-us,timestamp", 1000, "json:ts seems to have milliseconds, and is read as microseconds", "stop, set TIDEMARK_EVENT_TIME=json:ts:unix-ms,timestamp, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"json:ts:unix-us", 1e6, "json:ts seems to have seconds, and is read as microseconds", "stop, set TIDEMARK_EVENT_TIME=json:ts:unix-s, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"header:a:unix-ns,timestamp", 1000, "header:a seems to have microseconds, and is read as nanoseconds", "stop, set TIDEMARK_EVENT_TIME=header:a:unix-us,timestamp, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"header:a:unix-ns", 1e9, "header:a seems to have seconds, and is read as nanoseconds", "stop, set TIDEMARK_EVENT_TIME=header:a:unix-s, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"header:a:int64-be", 1000, "header:a seems to have seconds, and is read as milliseconds", "have producers write milliseconds: there is no format for seconds in 8 bytes"},
		{"avro:ts", 1000, "avro:ts seems to have seconds, and is read as milliseconds", "stop, set TIDEMARK_EVENT_TIME=avro:ts:unix-s, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md); if the schema says which unit it is, it is wrong: have producers write that unit"},
		{"timestamp", 1000, "timestamp seems to have seconds, and is read as milliseconds", "have producers set the timestamps of records in milliseconds, as Kafka has them; or, to take event times from another place, stop, set TIDEMARK_EVENT_TIME, run `tidemark position new-epoch` (with `--all --from earliest` for all of it again), and start again (docs/starting-over.md)"},
		{"json:ts", 1e6, "json:ts is too small by a factor of 1000000", "check what producers write"},
	} {
		if what, cure := mustParse(t, c.spec).TooSmall(0, c.factor); what != c.what || cure != c.cure {
			t.Errorf("%s, %d:\n%s\n%s", c.spec, c.factor, what, cure)
		}
	}
}
