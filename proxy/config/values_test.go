package config

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"pgregory.net/rapid"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]ByteSize{
		"256MiB": 256 << 20, "256mib": 256 << 20, "256Mi": 256 << 20, "1 GiB": 1 << 30, "1.5KiB": 1536, "256MB": 256e6, "1GB": 1e9, "100KB": 100e3, "7": 7,
	} {
		var b ByteSize
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q = %d, %v, want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1MiB", "1,5GiB", "1XB", "9EiB", "1e3", "∞"} {
		var b ByteSize
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q = %d", text, b)
		}
	}
}

func TestByteSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]ByteSize{1, kib, mib, gib}).Draw(t, "unit")
		want := unit * ByteSize(rapid.Int64Range(0, math.MaxInt64/int64(gib)).Draw(t, "n"))
		var got ByteSize
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Fatalf("%d is %s, which is %d, %v", want, want, got, err)
		}
	})
}

func TestDefaultMemory(t *testing.T) {
	none := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	unknown := func() (uint64, error) { return 0, errors.New("no such file") }
	tests := []struct {
		cgroup, system memlimit.Provider
		want           ByteSize
		note           string
	}{
		{memlimit.Limit(512 << 20), memlimit.Limit(64 << 30), 256 * mib, "default: half of the container's limit of 512MiB"},
		{memlimit.Limit(512 << 20), unknown, 256 * mib, "default: half of the container's limit of 512MiB"},
		{memlimit.Limit(500e6), memlimit.Limit(64 << 30), 238 * mib, "default: half of the container's limit of 476MiB"},
		{memlimit.Limit(8 << 30), memlimit.Limit(64 << 30), 4 * gib, "default: half of the container's limit of 8GiB"},
		{memlimit.Limit(math.MaxUint64), memlimit.Limit(1 << 30), 512 * mib, "default: no container limit found; half of the system's memory of 1GiB"},
		{none, memlimit.Limit(1 << 30), 512 * mib, "default: no container limit found; half of the system's memory of 1GiB"},
		{unknown, memlimit.Limit(64 << 30), 1 * gib, "default: no container limit found; half of the system's memory would be more"},
		{none, unknown, 256 * mib, "default: no container limit found, system memory unknown"},
	}
	for _, tt := range tests {
		if got, note := defaultMemory(tt.cgroup, tt.system); got != tt.want || note != tt.note {
			t.Errorf("%s, %q, want %s, %q", got, note, tt.want, tt.note)
		}
	}
}

func TestStartRoundTrip(t *testing.T) {
	for text, want := range map[string]string{
		"EARLIEST": "earliest", "latest": "latest", "group:a:b": "group:a:b",
		"0": "1970-01-01T00:00:00Z", "1700000000123": "2023-11-14T22:13:20.123Z", "2023-11-15T03:43:20+05:30": "2023-11-14T22:13:20Z",
	} {
		var s, again Start
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%q is %s, %v, want %s", text, s, err, want)
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s is read as %+v, %v", s, again, err)
		}
	}
}

func TestHeaderSetRoundTrip(t *testing.T) {
	for i := range 8 {
		want := HeaderSet{i&1 > 0, i&2 > 0, i&4 > 0}
		got := HeaderSet{true, true, true}
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", want, got, err)
		}
	}
}

func ExampleHeaderSet() {
	fmt.Println(HeaderSet{Watermark: true, EventTime: true}, HeaderSet{})
	// Output: watermark,event-time none
}

// What a producer's clock may be off by.
func TestClockSlack(t *testing.T) {
	for vars, want := range map[string]time.Duration{
		"":                                         2500 * time.Millisecond,
		"MAX_OUT_OF_ORDERNESS=10m":                 5 * time.Minute,
		"MAX_OUT_OF_ORDERNESS=10m MAX_FUTURE=0":    5 * time.Minute,
		"MAX_OUT_OF_ORDERNESS=10m MAX_FUTURE=1h":   5 * time.Minute,
		"MAX_OUT_OF_ORDERNESS=0":                   time.Second,
		"MAX_OUT_OF_ORDERNESS=100ms MAX_FUTURE=1s": time.Second,
		"MAX_OUT_OF_ORDERNESS=1m MAX_FUTURE=20s DELIVERY=at-least-once": 20 * time.Second,
		"WATERMARK=punctuated": 5 * time.Minute,
	} {
		if got := mustLoad(t, strings.Fields(vars)...).ClockSlack(); got != want {
			t.Errorf("%q: %v, want %v", vars, got, want)
		}
	}
}
