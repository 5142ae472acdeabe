package timestamp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
)

// A schema is read for its layout: which types follow each other, and what the fields
// are called. Whatever else is wrong with it (names, defaults, symbols, aliases, logical
// types that do not fit) does not change where a value's bytes are, and Java's Avro
// accepts much of it. Types may be used before they are defined.

// avroType is a type of a schema. A recursive one contains itself.
type avroType struct {
	kind    avroKind
	word    string      // what the schema calls the kind
	logical string      // its logicalType, as written
	size    int         // of a fixed
	parts   []*avroType // fields, branches, or the items of an array or map
	names   []string    // of a record's fields
	beside  []string    // the logicalType that is written beside the type of a field
	empty   bool        // its values take no bytes
	skipped []*avroType // of a record: the types of the fields that take bytes
	seen    bool        // findEmpty has been here
}

type avroKind int

const (
	avroNull avroKind = iota
	avroBoolean
	avroVarint // int, long, enum
	avroFloat
	avroDouble
	avroBytes // and string
	avroFixed
	avroArray
	avroMap
	avroUnion
	avroRecord
)

var avroKinds = map[string]avroKind{
	"null": avroNull, "boolean": avroBoolean, "int": avroVarint, "long": avroVarint, "enum": avroVarint,
	"float": avroFloat, "double": avroDouble, "bytes": avroBytes, "string": avroBytes, "fixed": avroFixed,
	"array": avroArray, "map": avroMap, "union": avroUnion, "record": avroRecord, "error": avroRecord,
}

// layoutOf returns the layout of a schema.
func layoutOf(s Schema) (*avroType, error) {
	l := avroLayout{definitions: map[string]*avroDefinition{}}
	for _, r := range s.References {
		if _, err := l.add(r.Text); err != nil {
			return nil, fmt.Errorf("the schema %s %w", r.Name, err)
		}
	}
	root, err := l.add(s.Text)
	if err != nil {
		return nil, fmt.Errorf("the schema %w", err)
	}
	if err := l.resolve(); err != nil {
		return nil, fmt.Errorf("the schema is no Avro schema: %w", err)
	}
	(*root).findEmpty()
	return *root, nil
}

// avroLayout collects types while schemas are read. A name stands for a type that may be
// defined around it, or further on: it is looked up at the end.
type avroLayout struct {
	definitions map[string]*avroDefinition
	names       []avroName
}

type avroDefinition struct {
	of   *avroType
	text map[string]any
}

// avroName is a name where a type should be.
type avroName struct {
	name, space string
	at          **avroType
}

func (l *avroLayout) add(text string) (**avroType, error) {
	if tooDeep([]byte(text), deepestSchema) {
		return nil, fmt.Errorf("is nested more than %d times", deepestSchema)
	}
	d := json.NewDecoder(bytes.NewReader(withoutComments(text)))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, errors.New("is no Avro schema: it is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("is no Avro schema: something follows it")
	}
	root := new(*avroType)
	if err := l.read(tree, "", root); err != nil {
		return nil, fmt.Errorf("is no Avro schema: %w", err)
	}
	return root, nil
}

// withoutComments returns JSON with spaces in place of comments, which Java's Avro allows.
func withoutComments(text string) []byte {
	plain := []byte(text)
	for i := 0; i < len(text); i++ {
		length := 0
		switch {
		case text[i] == '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case strings.HasPrefix(text[i:], "//"):
			length = skipPast(text[i:], "\n") + 1
		case strings.HasPrefix(text[i:], "/*"):
			length = skipPast(text[i:], "*/") + 1
		}
		if length > 0 {
			end := min(i+length, len(text))
			copy(plain[i:end], bytes.Repeat([]byte{' '}, end-i))
			i = end - 1
		}
	}
	return plain
}

// TypeOf tells the type of a schema by its text, for registries that do not say it: what is
// no JSON is Protobuf, and an object of a type that only Avro has, or a union, is Avro.
func TypeOf(text string) string {
	var tree any
	if json.Unmarshal(withoutComments(text), &tree) != nil {
		return "PROTOBUF"
	}
	if object, is := tree.(map[string]any); is {
		switch object["type"] {
		case "record", "error", "enum", "fixed", "map":
		default:
			return "JSON"
		}
	}
	return "AVRO"
}

// read reads a schema inside a namespace.
func (l *avroLayout) read(tree any, space string, at **avroType) error {
	switch tree := tree.(type) {
	case string:
		l.word(tree, space, at)
		return nil
	case []any:
		t := makeType("union", at)
		return l.parts(t, tree, space)
	case map[string]any:
		return l.object(tree, space, at)
	}
	return errors.New("a type is neither a name nor an object nor a union")
}

func makeType(word string, at **avroType) *avroType {
	*at = &avroType{kind: avroKinds[word], word: word}
	return *at
}

// parts reads the types that a type consists of. The slice has its full length before
// names point into it.
func (l *avroLayout) parts(t *avroType, trees []any, space string) error {
	t.parts = make([]*avroType, len(trees))
	for i, tree := range trees {
		if err := l.read(tree, space, &t.parts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *avroLayout) word(word, space string, at **avroType) {
	switch word {
	case "null", "boolean", "int", "long", "float", "double", "bytes", "string":
		makeType(word, at)
	default:
		l.names = append(l.names, avroName{word, space, at})
	}
}

func (l *avroLayout) object(tree map[string]any, space string, at **avroType) error {
	word, isWord := tree["type"].(string)
	if !isWord { // {"type": {"type": "long"}}, which some writers make
		inner, has := tree["type"]
		if !has {
			return errors.New("an object has no type")
		}
		return l.read(inner, space, at)
	}
	if _, known := avroKinds[word]; !known || word == "union" {
		l.word(word, space, at)
		return nil
	}
	t := makeType(word, at)
	t.logical, _ = tree["logicalType"].(string)
	switch t.kind {
	case avroArray:
		return l.parts(t, []any{tree["items"]}, space)
	case avroMap:
		return l.parts(t, []any{tree["values"]}, space)
	case avroFixed:
		if err := t.readSize(tree["size"]); err != nil {
			return err
		}
		_, err := l.define(t, tree, space)
		return err
	case avroRecord:
		inside, err := l.define(t, tree, space)
		if err != nil {
			return err
		}
		return l.fields(t, tree, inside)
	}
	if word == "enum" {
		_, err := l.define(t, tree, space)
		return err
	}
	return nil
}

func (t *avroType) readSize(tree any) error {
	size, err := strconv.ParseInt(fmt.Sprint(tree), 10, 32)
	if err != nil || size < 0 {
		return errors.New("a fixed has no size")
	}
	t.size = int(size)
	return nil
}

// define makes the name of a type known, and returns the namespace inside it. A name may
// be defined again if it is the same text; two meanings of one name are refused.
func (l *avroLayout) define(t *avroType, tree map[string]any, space string) (inside string, err error) {
	name, _ := tree["name"].(string)
	if name == "" {
		return "", fmt.Errorf("a %s has no name", t.word)
	}
	if own, has := tree["namespace"].(string); has {
		space = own
	}
	full := fullName(name, space)
	if len(full) > longestName {
		return "", fmt.Errorf("a name has more than %d bytes", longestName)
	}
	if earlier := l.definitions[full]; earlier != nil && !reflect.DeepEqual(earlier.text, tree) {
		return "", fmt.Errorf("%q is defined twice", full)
	}
	l.definitions[full] = &avroDefinition{t, tree}
	return full[:max(strings.LastIndexByte(full, '.'), 0)], nil
}

// fullName returns a name with its namespace. A point in front says that there is none.
func fullName(name, space string) string {
	if strings.LastIndexByte(name, '.') == 0 {
		return name[1:]
	}
	if space == "" || strings.Contains(name, ".") {
		return name
	}
	return space + "." + name
}

func (l *avroLayout) fields(t *avroType, tree map[string]any, space string) error {
	list, is := tree["fields"].([]any)
	if !is {
		return errors.New("a record has no fields")
	}
	types := make([]any, len(list))
	for i, field := range list {
		field, _ := field.(map[string]any)
		name, named := field["name"].(string)
		if !named {
			return errors.New("a field has no name")
		}
		beside, _ := field["logicalType"].(string)
		t.names, t.beside = append(t.names, name), append(t.beside, beside)
		if types[i] = field["type"]; isInline(field) {
			types[i] = field
		}
	}
	return l.parts(t, types, space)
}

// isInline reports whether a field is written as goavro accepts it, with what belongs
// into its type beside it: {"name": "tags", "type": "array", "items": "string"}.
func isInline(field map[string]any) bool {
	inside := map[string]string{
		"record": "fields", "error": "fields", "enum": "symbols", "fixed": "size", "array": "items", "map": "values",
	}
	word, _ := field["type"].(string)
	_, has := field[inside[word]]
	return has
}

// resolve gives names the types that they stand for: in their own namespace, else in
// none.
func (l *avroLayout) resolve() error {
	for _, n := range l.names {
		d := l.definitions[fullName(n.name, n.space)]
		if d == nil {
			d = l.definitions[fullName(n.name, "")]
		}
		if d == nil {
			return fmt.Errorf("the type %q is not defined", n.name)
		}
		*n.at = d.of
	}
	return nil
}

// findEmpty marks the types whose values take no bytes: what is skipped of them
// costs nothing, however many the value says there are. Each is looked at once; one that
// contains itself is not empty.
func (t *avroType) findEmpty() bool {
	if t.seen {
		return t.empty
	}
	t.seen = true
	empty := t.kind == avroNull || t.kind == avroFixed && t.size == 0 || t.kind == avroRecord
	for _, part := range t.parts {
		empty = part.findEmpty() && empty
	}
	t.empty, t.skipped = empty, withBytes(t.parts)
	return empty
}

// withBytes leaves out the types whose values take no bytes. A record may have thousands of
// them for each byte of its value.
func withBytes(types []*avroType) (some []*avroType) {
	for _, t := range types {
		if !t.empty {
			some = append(some, t)
		}
	}
	return some
}

// validLogical returns a logical type where it is one of time and fits the type that it
// is on: the specification has readers ignore it elsewhere. Others are only described.
func validLogical(word, logical string) string {
	switch logical {
	case "timestamp-millis", "timestamp-micros", "timestamp-nanos",
		"local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos", "time-micros":
		if word != "long" {
			return ""
		}
	case "date", "time-millis":
		if word != "int" {
			return ""
		}
	}
	return logical
}
