package emit

import "testing"

func TestKindOf(t *testing.T) {
	for value, want := range map[string]string{
		"": "nothing", "7": "a number of 1 digit", "-1700000000": "a number of 10 digits", "17.25": "a number of 2 digits and 2 behind the point",
		"1.7e12": "a number with an exponent", "-1E-3": "a number with an exponent", "1e": "text of 2 bytes", "e5": "text of 2 bytes", "1.": "text of 2 bytes",
		"x": "text of 1 byte", "anna@example.org": "text of 16 bytes", "zwölf\n": "text of 7 bytes", "\x00\x01": "2 bytes that are not text",
		"\xff": "1 byte that is not text", "a\x1b[2J": "5 bytes that are not text",
	} {
		if got := KindOf([]byte(value)); got != want {
			t.Errorf("%q is %s, want %s", value, got, want)
		}
	}
}

func TestShown(t *testing.T) {
	for value, want := range map[string]string{
		"17": "17", "-1": "-1", "9223372036854775807": "9223372036854775807", "41111111111111111111": "a number of 20 digits", "": "nothing", "anna": "text of 4 bytes", "1.5": "a number of 1 digit and 1 behind the point",
	} {
		if got := Shown([]byte(value)); got != want {
			t.Errorf("%q is shown as %s, want %s", value, got, want)
		}
	}
}
