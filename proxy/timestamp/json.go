package timestamp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/tidwall/gjson"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// jsonField is a field of a value in JSON. Names are separated by points; a
// number is a place in an array, counted from 0. Of several members with one name
// the last counts, as with most parsers, and with headers.
//
// Absent is a field that is not there or is null, also because what should lead
// to it is something else; and all fields of a tombstone. A value that is no JSON
// is unusable: what it would have said nobody knows.
type jsonField struct {
	path   string
	names  []string
	format format
}

func (j *jsonField) String() string { return j.place() + ":" + string(j.format) }
func (j *jsonField) place() string  { return "json:" + j.path }

// parseJSON reads a path. It takes none of the wildcards, queries and modifiers
// of gjson: what is one place in every record cannot surprise.
func parseJSON(text, path string, f format) (source, error) {
	if f == int64BE {
		return nil, fmt.Errorf("%s: JSON has no %s", text, f)
	}
	names, err := splitPath(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return &jsonField{path, names, f}, nil
}

// splitPath splits at points. A backslash takes its meaning from what follows.
func splitPath(path string) ([]string, error) {
	if strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf(`a path begins with a name, and names are separated by points: %s (a name that really begins with a / is written \/)`, strings.ReplaceAll(path[1:], "/", "."))
	}
	var names []string
	var name strings.Builder
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '.':
			names = append(names, name.String())
			name.Reset()
		case c == '\\' && i+1 < len(path):
			i++
			name.WriteByte(path[i])
		case strings.IndexByte(`\*?#|[`, c) >= 0:
			return nil, fmt.Errorf(`%q has no meaning in a path: names are separated by points, places in arrays are numbers like items.0.time, and a %c in a name is written \%c`, c, c, c)
		default:
			name.WriteByte(c)
		}
	}
	names = append(names, name.String())
	for _, n := range names {
		if n == "" {
			return nil, errors.New("a name in the path is empty")
		}
	}
	if names[0] == "$" && len(names) > 1 {
		return nil, errors.New(`a path begins with a name; leave out the "$."`)
	}
	if len(names) > longestPath {
		return nil, fmt.Errorf("a path may have %d names", longestPath)
	}
	return names, nil
}

// longestPath bounds the names of a path, and with them what is recursive.
const longestPath = 32

// deepestJSON is how deeply a value may be nested. gjson validates recursively,
// and in Go a stack that is used up ends the process.
const deepestJSON = 1000

// behindID returns a value without the id of its schema: no JSON begins with what a
// serializer for JSON Schema puts before it (frame.go).
func behindID(value []byte) []byte {
	switch {
	case len(value) >= 9 && string(value[:6]) == "\x00\x00\x00\x00\x00\x00": // Apicurio's
		return value[9:]
	case len(value) >= 5 && value[0] == 0:
		return value[5:]
	case len(value) >= 18 && value[0] == 3 && value[1] == 0: // AWS Glue's, not compressed
		return value[18:]
	}
	return value
}

func (j *jsonField) time(r *kgo.Record) (t watermark.Time, present bool, err error) {
	if r.Value == nil {
		return watermark.None, false, nil
	}
	value := behindID(r.Value)
	if tooDeep(value, deepestJSON) {
		return watermark.None, true, fmt.Errorf("%w: the value is nested more than %d times", ErrInvalid, deepestJSON)
	}
	// No copy: nothing of it is kept, and nothing changes the value meanwhile.
	text := unsafe.String(unsafe.SliceData(value), len(value))
	if !gjson.Valid(text) {
		return watermark.None, true, fmt.Errorf("%w: the value (%s) is not JSON (looked for %s)", ErrInvalid, emit.KindOf(value), j.path)
	}
	for _, name := range j.names {
		text = member(text, name)
	}
	found := gjson.Parse(text)
	var why string
	switch found.Type {
	case gjson.Null: // or not there
		return watermark.None, false, nil
	case gjson.Number:
		number := unsafe.Slice(unsafe.StringData(found.Raw), len(found.Raw))
		if t, why = j.format.number(number); why != "" {
			why = j.format.refusal(number, why)
		}
	case gjson.String:
		text := unsafe.Slice(unsafe.StringData(found.Str), len(found.Str))
		if t, why = j.format.time(text); why != "" {
			why = j.format.refusal(text, why)
		}
	default:
		why = "is " + kindOfJSON(found) + ", and neither a number nor text"
	}
	if why != "" {
		return watermark.None, true, fmt.Errorf("%w: field %s %s", ErrInvalid, j.path, why)
	}
	return t, true, nil
}

func kindOfJSON(found gjson.Result) string {
	switch {
	case found.IsObject():
		return "an object"
	case found.IsArray():
		return "an array"
	}
	return "true or false"
}

// member returns a member of an object or an element of an array as it is
// written, or nothing. The text is valid, and stays where it is; gjson's own way
// through an object makes a copy of every string with an escape in it, and ends at
// the first member of a name.
func member(of, name string) (found string) {
	i := skipSpace(of, 0)
	if i == len(of) || of[i] != '{' && of[i] != '[' {
		return ""
	}
	object := of[i] == '{'
	place := 0
	if !object {
		if place = placeIn(name); place < 0 {
			return ""
		}
	}
	for i = skipSpace(of, i+1); of[i] != '}' && of[i] != ']'; i = skipSpace(of, i) {
		wanted := place == 0
		place--
		if object {
			key := of[i:valueEnd(of, i)]
			wanted = isKey(key, name)
			i = skipSpace(of, i+len(key)) // to the colon
			i = skipSpace(of, i+1)
		}
		end := valueEnd(of, i)
		if wanted {
			found = of[i:end]
			if !object {
				return found
			}
		}
		if i = skipSpace(of, end); of[i] == ',' {
			i++
		}
	}
	return found
}

// placeIn returns the place in an array that a name stands for, or -1.
func placeIn(name string) (place int) {
	for i := range len(name) {
		if name[i] < '0' || name[i] > '9' || i > 9 {
			return -1
		}
		place = place*10 + int(name[i]-'0')
	}
	return place
}

func isKey(key, name string) bool {
	if strings.IndexByte(key, '\\') < 0 {
		return key[1:len(key)-1] == name
	}
	return gjson.Parse(key).Str == name
}

func skipSpace(text string, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// valueEnd returns where the value ends that begins at i.
func valueEnd(text string, i int) int {
	for depth := 0; ; {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\n', '\t', '\r':
			i++
		default:
			for i < len(text) && strings.IndexByte(",:]} \n\t\r", text[i]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

func stringEnd(text string, i int) int {
	for i++; ; i++ {
		i += strings.IndexByte(text[i:], '"')
		escapes := 0
		for text[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// tooDeep reports whether brackets and braces outside of strings are nested more
// than most times. It need not be JSON.
func tooDeep(text []byte, most int) bool {
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) <= most {
		return false // the usual case, by far the fastest
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}
