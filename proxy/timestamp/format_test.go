package timestamp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

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
		{unixMillis, "2023-11-14T22:13Z", 1699999980 * sec, ""},
		{unixMillis, "2023-11-14 22:13:20Z", 1700000000 * sec, ""},
		{unixMillis, "2023-11-14t22:13:20z", 1700000000 * sec, ""},
		{unixMillis, "2023-11-14T22:13:20", 0, whyNoZone},
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
		{rfc3339, "2016-12-31T23:59:60Z", 1483228800 * sec, ""}, // a leap second is the next one
		{rfc3339, "2016-12-31T23:59:60.5Z", 1483228800*sec + sec/2, ""},
		{rfc3339, "2017-01-01T00:59:60+01:00", 1483228800 * sec, ""},
		{rfc3339, "2016-12-31T23:59:61Z", 0, whyNotRFC3339},
		{rfc3339, "2262-04-11T23:47:15.999999999Z", 9223372035*sec + 999999999, ""},
		{rfc3339, "2262-04-11T23:47:17Z", 0, whyOutside},
		{rfc3339, "1677-09-21T00:12:44Z", -9223372036 * sec, ""},
		{rfc3339, "1677-09-21T00:12:43.2Z", math.MinInt64 + 1 + 54775807, ""},
		{rfc3339, "1677-09-21T00:12:42.999999999Z", 0, whyOutside},
		{rfc3339, "2262-04-11T23:47:16.854775807Z", math.MaxInt64, ""},
		{rfc3339, "2262-04-11T23:47:16.854775808Z", 0, whyOutside},
		{rfc3339, "1677-09-21T00:12:43.145224193Z", math.MinInt64 + 1, ""},
		{rfc3339, "1677-09-21T00:12:43.145224192Z", 0, whyOutside},
		{rfc3339, "9999-12-31T23:59:59Z", 0, whyOutside},
		{rfc3339, "0001-01-01T00:00:00Z", 0, whyOutside},
		{rfc3339, "2023-11-14T22:13:20", 0, whyNoZone}, // whose clock?
		{rfc3339, "2023-11-14T22:13", 0, whyNoZone},
		{rfc3339, "2023-11-14 22:13:20.5", 0, whyNoZone},
		{rfc3339, "2023-11-14T22:13:20[Europe/Paris]", 0, whyNoZone}, // which of two, where the clock is set back?
		{rfc3339, "2023-11-14 22:13:20Z", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14t22:13:20z", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14t22:13:20.25z", 1700000000*sec + sec/4, ""},
		{rfc3339, "2023-11-14  22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14_22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13Z", 1699999980 * sec, ""}, // java.time leaves out zeros
		{rfc3339, "2023-11-14T22:13+00:00", 1699999980 * sec, ""},
		{rfc3339, "2023-11-14T22Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13.5Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14", 0, whyNotRFC3339},
		{rfc3339, "20231114T221320Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14 22:13:20+00", 1700000000 * sec, ""}, // Postgres
		{rfc3339, "2023-11-15T03:43:20+0530", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T14:13:20-08", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14 22:13:20 +0000", 1700000000 * sec, ""}, // Ruby
		{rfc3339, "2023-11-14 22:13:20 UTC", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14 22:13:20UTC", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14 22:13:20 CET", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14 22:13:20 ", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20-00:00", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T22:22:41+00:09:21", 1700000000 * sec, ""}, // java.time, before zones had hours
		{rfc3339, "2023-11-14T23:13:20+01:00:00", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T23:13:20+01:00:60", 0, whyOffset},
		{rfc3339, "2023-11-14T23:13:20+01:00:0", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T23:13:20+010000", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T23:13:20+01:00[Europe/Paris]", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T22:13:20Z[UTC]", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T23:13:20+01:00[Europe/Paris][u-ca=iso8601]", 1700000000 * sec, ""},
		{rfc3339, "2023-11-14T23:13:20+01:00[America/Havana]", 1700000000 * sec, ""}, // the offset decides
		{rfc3339, "2023-11-14T23:13:20+01:00[!Europe/Paris]", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T23:13:20+01:00[]", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T23:13:20+01:00[Europe/Paris", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T23:13:20+01:00[Europe/Paris]x", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T23:13:20[x]Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20+24:00", 0, whyOffset},
		{rfc3339, "2023-11-14T22:13:20+01:60", 0, whyOffset},
		{rfc3339, "2023-11-14T22:13:20-99:00", 0, whyOffset},
		{rfc3339, "2023-11-14T22:13:20+23:59", 1699913660 * sec, ""},
		{rfc3339, "2023-11-14T22:13:20+1:00", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20+010", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20+01:0", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20+01:", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20+", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T24:00:00Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:60:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-13-14T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-00-14T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-00T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-31T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "+2023-11-14T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-14T22:13:20,5Z", 1700000000*sec + sec/2, ""},
		{rfc3339, "2023-11-14T2:13:20Z", 1699928000 * sec, ""}, // H in a pattern, for HH
		{rfc3339, "2023-11-14 2:13Z", 1699927980 * sec, ""},
		{rfc3339, "2023-11-14T2Z", 0, whyNotRFC3339},
		{rfc3339, "2023-11-4T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "2023-1-14T22:13:20Z", 0, whyNotRFC3339},
		{rfc3339, "1700000000123", 0, whyNotRFC3339},
		{rfc3339, "", 0, whyEmpty},

		{"local:Europe/Paris", "2023-11-14T23:13:20", 1700000000 * sec, ""},
		{"local:Europe/Paris", "2023-11-14 23:13:20.123456789", 1700000000*sec + 123456789, ""},
		{"local:Europe/Paris", "2023-11-14T23:13", 1699999980 * sec, ""},
		{"local:Europe/Paris", "2023-11-14T22:13:20Z", 1700000000 * sec, ""},        // it says so itself
		{"local:Europe/Paris", "2025-03-30T02:30:00.5", 1743298200*sec + sec/2, ""}, // never shown: half an hour behind the change
		{"local:Europe/Paris", "2025-10-26T02:30:00.5", 1761438600*sec + sec/2, ""}, // shown twice: the first
		{"local:Europe/Paris", "1969-12-31T23:59:59.999999999", -3600*sec - 1, ""},
		{"local:Europe/Paris", "2262-04-12T01:47:16.854775807", math.MaxInt64, ""},
		{"local:Europe/Paris", "2262-04-12T01:47:16.854775808", 0, whyOutside},
		{"local:UTC", "2016-12-31T23:59:60", 1483228800 * sec, ""},
		{"local:Etc/GMT+5", "2023-11-14T17:13:20", 1700000000 * sec, ""},
		{"local:Europe/Paris", "2023-11-14T23:13:20[Europe/Rome]", 1700000000 * sec, ""},
		{"local:Europe/Paris", "2023-11-14", 0, whyNotRFC3339},
		{"local:Europe/Paris", "1700000000123", 0, whyNotRFC3339},

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

// FuzzRFC3339 holds our grammar against package time: what that takes we take for the same
// instant, but for impossible offsets; and whatever else we take, it takes once the liberties
// are mended.
func FuzzRFC3339(f *testing.F) {
	for _, s := range []string{
		"2023-11-14T22:13:20Z", "2023-11-15T03:43:20.123456789+05:30", "2023-11-14T22:13:20,5Z", "2023-11-14T22:13Z",
		"2016-12-31T23:59:60Z", "2262-04-11T23:47:16.854775808Z", "2023-11-14T2:13:20Z", "2023-11-14T22:13:20+24:00",
		"2023-11-14 22:13:20 UTC", "2023-11-14t22:13:20.5z", "2023-11-14 22:13:20+00", "2023-11-14T22:13:20-0830",
		"2023-11-14T23:13:20+01:00[Europe/Paris]", "2023-11-14T22:13:20+00:09:21", "2023-11-14T22:13:20",
		"1677-09-21T00:12:43.145224193Z", "0000-01-01T00:00:00Z",
	} {
		f.Add(s)
	}
	first, last := time.Unix(0, math.MinInt64+1), time.Unix(0, math.MaxInt64)
	f.Fuzz(func(t *testing.T, value string) {
		got, why := rfc3339.time([]byte(value))
		if len(value) == 0 {
			return
		}
		want, err := time.Parse(time.RFC3339, value)
		if err == nil && impossible.MatchString(value) {
			if why != whyOffset {
				t.Fatalf("%q: %q", value, why)
			}
			return
		}
		if err != nil {
			if want, err = twinOfText(value); (err == nil) != (why == "" || why == whyOutside) {
				t.Fatalf("%q: %q, the twin says %v, %v", value, why, want, err)
			}
		}
		outside := err == nil && (want.Before(first) || want.After(last))
		switch {
		case (why == whyOutside) != outside, err == nil && why != "" && !outside:
			t.Fatalf("%q: %q, package time says %v, %v", value, why, want, err)
		case why == "" && !time.Unix(0, int64(got)).Equal(want):
			t.Fatalf("%q = %d, package time says %v", value, got, want)
		}
	})
}

var (
	impossible = regexp.MustCompile(`[+-](24:\d\d|\d\d:60)$`)
	liberties  = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[Tt ](\d{1,2}:\d\d)(?:(:\d\d)((?:[.,]\d+)?))?(?:( UTC)| ?(?:[Zz]|([+-][01]\d|[+-]2[0-3])(?::?([0-5]\d)(?::([0-5]\d))?)?)(?:\[[\w/+=.:~-]+\])*)$`)
)

// twinOfText puts a text into the one shape that package time takes.
func twinOfText(value string) (time.Time, error) {
	m := liberties.FindStringSubmatch(value)
	if m == nil {
		return time.Time{}, errors.New("not in the grammar")
	}
	date, clock, second, fraction, hours, minutes, seconds := m[1], m[2], m[3], m[4], m[6], m[7], m[8]
	leap := time.Duration(0)
	switch second {
	case "":
		second = ":00"
	case ":60":
		second, leap = ":59", time.Second
	}
	offset, err := time.ParseDuration(cmp.Or(hours, "+00") + "h" + cmp.Or(minutes, "0") + "m" + cmp.Or(seconds, "0") + "s")
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, date+"T"+clock+second+fraction+"Z")
	return t.Add(leap - offset), err
}

// TestTextTwin does the same for texts that are put together of pieces, most of which fit.
func TestTextTwin(t *testing.T) {
	pieces := [][]string{
		{"2023-11-14", "2024-02-29", "2023-02-29", "2262-04-11", "1677-09-21", "1969-12-31", "0000-01-01", "2023-1-14", "2023-00-10", "9999-12-31"},
		{"T", "t", " ", "", "_", "  "},
		{"22:13", "2:13", "23:59", "24:00", "00:12", "23:60", "22", "23:47"},
		{":20", ":60", ":61", "", ":43", ":16", ":", ":7"},
		{"", ".5", ",5", ".123456789", ".1234567899", ".854775807", ".854775808", ".145224193", ".145224192", ".", ".x"},
		{"Z", "z", "", " ", " Z", " UTC", "UTC", "+00", "+0530", "-08:00", " +0100", "+23:59", "+24:00", "+01:60", "+1:00", "-00:09:21", "+", "+01:"},
		{"", "", "", "[Europe/Paris]", "[UTC]", "[Europe/Paris][u-ca=iso8601]", "[]", "[!x]", "x", "["},
	}
	rapid.Check(t, func(t *rapid.T) {
		value := ""
		for _, some := range pieces {
			value += rapid.SampledFrom(some).Draw(t, "piece")
		}
		got, why := rfc3339.time([]byte(value))
		want, err := twinOfText(value)
		switch {
		case err != nil && (why == "" || why == whyOutside), err == nil && why != "" && why != whyOutside:
			t.Fatalf("%q: %q, the twin says %v, %v", value, why, want, err)
		case why == "" && !time.Unix(0, int64(got)).Equal(want):
			t.Fatalf("%q = %d, the twin says %v", value, got, want)
		case why == whyOutside && want.Year() > 1677 && want.Year() < 2262:
			t.Fatalf("%q is outside", value)
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
