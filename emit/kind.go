package emit

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// KindOf says what a value is without a word of it: its length, and whether it is a number,
// text or neither. What records hold is in no log, error, report or page.
func KindOf(value []byte) string {
	digits := bytes.TrimPrefix(value, []byte("-"))
	whole, fraction, point := bytes.Cut(digits, []byte("."))
	switch e := bytes.IndexAny(digits, "eE"); {
	case len(value) == 0:
		return "nothing"
	case allDigits(whole) && !point:
		return "a number of " + counted(len(whole), "digit")
	case allDigits(whole) && allDigits(fraction):
		return fmt.Sprintf("a number of %s and %d behind the point", counted(len(whole), "digit"), len(fraction))
	case e > 0 && allDigits(bytes.ReplaceAll(digits[:e], []byte("."), nil)) && allDigits(bytes.TrimLeft(digits[e+1:], "+-")):
		return "a number with an exponent"
	case !IsText(value) && len(value) == 1:
		return "1 byte that is not text"
	case !IsText(value):
		return fmt.Sprintf("%d bytes that are not text", len(value))
	}
	return "text of " + counted(len(value), "byte")
}

// Shown returns the value of a header that should be one of ours: a number as it is, anything
// else, which somebody else has written, as its kind.
func Shown(value []byte) string {
	if digits := bytes.TrimPrefix(value, []byte("-")); len(digits) <= 19 && allDigits(digits) {
		return string(value)
	}
	return KindOf(value)
}

// IsText reports whether a value can be read as text.
func IsText(value []byte) bool {
	return utf8.Valid(value) && bytes.IndexFunc(value, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) }) < 0
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func allDigits(text []byte) bool {
	return len(text) > 0 && bytes.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }) < 0
}
