package timestamp

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

func TestFormats(t *testing.T) {
	const (
		ms  = int64(time.Millisecond)
		sec = int64(time.Second)
	)
	tests := []struct {
		format format
		value  string
		want   int64  // ns
		why    string // instead of want
	}{
		{unixMillis, "1700000000123", 1700000000123 * ms, ""},
		{unixMillis, "0", 0, ""},
		{unixMillis, "-0", 0, ""},
		{unixMillis, "-1", -ms, ""},
		{unixMillis, "0001700000000123", 1700000000123 * ms, ""},
		{unixMillis, "1700000000123.000001", 1700000000123*ms + 1, ""},
		{unixMillis, "0.0000019", 1, ""},
		{unixMillis, "-0.0000019", -2, ""}, // down, as above 1970
		{unixMillis, "-0.0000010", -1, ""},
		{unixMillis, "9223372036854.775807", math.MaxInt64, ""},
		{unixMillis, "-9223372036854.775807", math.MinInt64 + 1, ""},
		{unixMillis, "9223372036854.775808", 0, whyOutside},
		{unixMillis, "-9223372036854.775808", 0, whyOutside}, // watermark.None is no time
		{unixMillis, "-9223372036854.7758071", 0, whyOutside},
		{unixMillis, "9223372036855", 0, whyOutside},
		{unixMillis, "1700000000123456", 0, whyOutside}, // microseconds: the year 55840
		{unixMillis, "18446744073709551616", 0, whyOutside},
		{unixMillis, strings.Repeat("9", 500), 0, whyOutside},
		{unixMillis, "2023-11-14T22:13:20Z", 1700000000 * sec, ""},
		{unixMillis, "2023-11-14T22:13Z", 0, whyNotRFC3339},
		{unixMillis, "", 0, whyEmpty},
		{unixMillis, " 1700000000123", 0, whyNotMillis},
		{unixMillis, "1700000000123\n", 0, whyNotMillis},
		{unixMillis, "+1700000000123", 0, whyNotMillis},
		{unixMillis, "--1", 0, whyNotMillis},
		{unixMillis, "-", 0, whyNotMillis},
		{unixMillis, ".", 0, whyNotMillis},
		{unixMillis, "1.", 0, whyNotMillis},
		{unixMillis, ".5", 0, whyNotMillis},
		{unixMillis, "1.2.3", 0, whyNotMillis},
		{unixMillis, "1.-2", 0, whyNotMillis},
		{unixMillis, "1,5", 0, whyNotMillis},
		{unixMillis, "1e12", 0, whyNotMillis},
		{unixMillis, "0x10", 0, whyNotMillis},
		{unixMillis, "1_000", 0, whyNotMillis},
		{unixMillis, "NaN", 0, whyNotMillis},
		{unixMillis, "\x00\x00\x01\x8b\xcf\xe5\x68\x7b", 0, whyNotMillis}, // int64-be unannounced

		{unixSeconds, "1700000000", 1700000000 * sec, ""},
		{unixSeconds, "1700000000.123", 1700000000*sec + 123*ms, ""},
		{unixSeconds, "1700000000.123456789", 1700000000*sec + 123456789, ""},
		{unixSeconds, "1700000000.1234567899", 1700000000*sec + 123456789, ""},
		{unixSeconds, "-0.5", -sec / 2, ""},
		{unixSeconds, "9223372036.854775807", math.MaxInt64, ""},
		{unixSeconds, "9223372036.854775808", 0, whyOutside},
		{unixSeconds, "1700000000123", 0, whyOutside}, // milliseconds: the year 55840
		{unixSeconds, "2023-11-14T22:13:20Z", 0, whyNotDecimal},
		{unixMicros, "1700000000123456", 1700000000123456000, ""},
		{unixMicros, "1700000000123456.7", 1700000000123456700, ""},
		{unixNanos, "1700000000123456789", 1700000000123456789, ""},
		{unixNanos, "9223372036854775807", math.MaxInt64, ""},
		{unixNanos, "-9223372036854775807", math.MinInt64 + 1, ""},
		{unixNanos, "-9223372036854775808", 0, whyOutside},
		{unixNanos, "1.0", 0, whyNotDecimal},

		{rfc3339, "2023-11-14T22:13:20Z", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T22:13:20.123456789Z", 1700000000*sec + 123456789, ""},
		{rfc3339, "2023-11-14T22:13:20.1234567899Z", 1700000000*sec + 123456789, ""},
		{rfc3339, "2023-11-15T03:43:20+05:30", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T14:13:20-08:00", 1700000000 * sec, ""},
		{rfc3339, "1969-12-31T23:59:59.999999999Z", -1, ""},
		{rfc3339, "2024-02-29T00:00:00Z", 1709164800 * sec, ""},
		{rfc3339, "2023-02-29T00:00:00Z", 0, whyNotRFC3339},
		{rfc3339, "2016-12-31T23:59:60Z", 0, whyNotRFC3339}, // a leap second
		{rfc3339, "2262-04-11T23:47:16.854775807Z", math.MaxInt64, ""},
		{rfc3339, "2262-04-11T23:47:16.854775808Z", 0, whyOutside},
		{rfc3339, "1677-09-21T00:12:43.145224193Z", math.MinInt64 + 1, ""},
		{rfc3339, "1677-09-21T00:12:43.145224192Z", 0, whyOutside},
		{rfc3339, "9999-12-31T23:59:59Z", 0, whyOutside},
		{rfc3339, "0001-01-01T00:00:00Z", 0, whyOutside},
		{rfc3339, "2023-11-14T22:13:20", 0, whyNotRFC3339}, // no zone: whose clock?
		{rfc3339, "2023-11-14 22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14t22:13:20z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20,5Z", 1700000000*sec + sec/2, ""},
		{rfc3339, "2023-11-14T2:13:20Z", 1699928000 * sec, ""},
		{rfc3339, "2023-11-14T22:13:20+99:00", 0, whyNotRFC3339},
		{rfc3339, "1700000000123", 0, whyNotRFC3339},
		{rfc3339, "", 0, whyEmpty},

		{int64BE, be(1700000000123), 1700000000123 * ms, ""},
		{int64BE, be(-1), -ms, ""},
		{int64BE, be(9223372036854), 9223372036854 * ms, ""},
		{int64BE, be(9223372036855), 0, whyOutside},
		{int64BE, be(math.MinInt64), 0, whyOutside},
		{int64BE, be(math.MaxInt64), 0, whyOutside},
		{int64BE, "1700000000123", 0, whyNot8Bytes},
		{int64BE, be(1)[:7], 0, whyNot8Bytes},
		{int64BE, "", 0, whyEmpty},
	}
	for _, tt := range tests {
		got, why := tt.format.time([]byte(tt.value))
		if why != tt.why {
			t.Errorf("%s %q: %q, want %q", tt.format, tt.value, why, tt.why)
		} else if why == "" && int64(got) != tt.want {
			t.Errorf("%s %q = %d, want %d", tt.format, tt.value, got, tt.want)
		} else if why != "" && got != watermark.None {
			t.Errorf("%s %q: %d beside a reason", tt.format, tt.value, got)
		}
	}
}

func be(ms int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(ms)))
}

// FuzzDecimal compares with arithmetic that cannot overflow or round.
func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"1700000000123", "-0.0000019", "9223372036854.775808", "1.", "00.1", "-", "1e5"} {
		f.Add([]byte(s))
	}
	units := map[format]int64{unixSeconds: 1e9, unixMicros: 1e3, unixNanos: 1, unixMillis: 1e6}
	f.Fuzz(func(t *testing.T, value []byte) {
		for format, unit := range units {
			got, why := format.time(value)
			if why != "" || bytes.IndexByte(value, 'T') >= 0 {
				continue
			}
			exact, ok := new(big.Rat).SetString(string(value))
			if !ok {
				t.Fatalf("%s took %q for the number %d", format, value, got)
			}
			exact.Mul(exact, new(big.Rat).SetInt64(unit))
			want := new(big.Int).Div(exact.Num(), exact.Denom()) // rounds down, for the denominator is positive
			if !want.IsInt64() || want.Int64() != int64(got) || got == watermark.None {
				t.Fatalf("%s %q = %d, want %v", format, value, got, want)
			}
		}
	})
}

// FuzzDecimalRoundTrip writes every time down, and reads it back.
func FuzzDecimalRoundTrip(f *testing.F) {
	for _, ns := range []int64{0, 1, -1, 1700000000123456789, math.MaxInt64, math.MinInt64 + 1} {
		f.Add(ns)
	}
	places := map[format]int{unixSeconds: 9, unixMillis: 6, unixMicros: 3, unixNanos: 0}
	f.Fuzz(func(t *testing.T, ns int64) {
		if ns == int64(watermark.None) {
			return
		}
		for format, n := range places {
			scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
			value := new(big.Rat).SetFrac(big.NewInt(ns), scale).FloatString(n)
			if got, why := format.time([]byte(value)); why != "" || int64(got) != ns {
				t.Fatalf("%s %q = %d %s, want %d", format, value, got, why, ns)
			}
		}
	})
}

// FuzzRFC3339 holds the reading of text against time.Parse: both take the same
// values for the same instants, but for those outside the range.
func FuzzRFC3339(f *testing.F) {
	for _, s := range []string{
		"2023-11-14T22:13:20Z", "2023-11-15T03:43:20.123456789+05:30", "2023-11-14T22:13:20,5Z",
		"2016-12-31T23:59:60Z", "2262-04-11T23:47:16.854775808Z", "2023-11-14T2:13:20Z", "2023-11-14T22:13:20+24:00",
	} {
		f.Add(s)
	}
	first, last := time.Unix(0, math.MinInt64+1), time.Unix(0, math.MaxInt64)
	f.Fuzz(func(t *testing.T, value string) {
		got, why := text([]byte(value))
		want, err := time.Parse(time.RFC3339, value)
		outside := err == nil && (want.Before(first) || want.After(last))
		switch {
		case (why == whyNotRFC3339) != (err != nil), (why == whyOutside) != outside:
			t.Fatalf("%q: %q, time.Parse says %v, %v", value, why, want, err)
		case why == "" && !time.Unix(0, int64(got)).Equal(want):
			t.Fatalf("%q = %d, time.Parse says %v", value, got, want)
		}
	})
}

func FuzzRFC3339RoundTrip(f *testing.F) {
	f.Add(int64(1700000000123456789), 330)
	f.Add(int64(math.MaxInt64), -720)
	f.Fuzz(func(t *testing.T, ns int64, zoneMinutes int) {
		if ns == int64(watermark.None) {
			return
		}
		zone := time.FixedZone("", zoneMinutes%(24*60)*60)
		value := time.Unix(0, ns).In(zone).Format(time.RFC3339Nano)
		for _, format := range []format{rfc3339, unixMillis} {
			if got, why := format.time([]byte(value)); why != "" || int64(got) != ns {
				t.Fatalf("%s %q = %d %s, want %d", format, value, got, why, ns)
			}
		}
	})
}
