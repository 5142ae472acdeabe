package timestamp

import (
	"fmt"
	"strings"

	"github.com/twmb/avro"
)

// The library reads the schema, and we the value: up to the field that is wanted
// and no further, past everything before it without making anything of it. The
// library's own way through a value is the twin in the tests.
//
//	record  | before | the field |  never looked at  |
//	          skip     step

// avroType is a type of a schema, as far as it matters to what skips its values.
type avroType struct {
	kind  avroKind
	size  int         // of a fixed
	parts []*avroType // fields, branches, or the items of an array or map
	empty bool        // its values take no bytes
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

// Why a value in Avro is unusable.
const (
	whyShort      = "is cut off: the value ends before it"
	whyAvroBranch = "is in a branch that its union does not have"
	whyAvroLength = "comes after something with an invalid length"
	whyAvroDeep   = "comes after something that is nested too deeply"
)

// deepestAvro bounds how deeply what is skipped may be nested.
const deepestAvro = 200

func compileAvro(s Schema, path []string, f format) (reader, error) {
	var known avro.SchemaCache
	for _, r := range s.References {
		if tooDeep([]byte(r.Text), deepestSchema) {
			return nil, fmt.Errorf("the schema %s is nested more than %d times", r.Name, deepestSchema)
		}
		if _, err := known.Parse(r.Text); err != nil {
			return nil, fmt.Errorf("the schema %s is no Avro schema: %w", r.Name, err)
		}
	}
	if tooDeep([]byte(s.Text), deepestSchema) {
		return nil, fmt.Errorf("the schema is nested more than %d times", deepestSchema)
	}
	parsed, err := known.Parse(s.Text)
	if err != nil {
		return nil, fmt.Errorf("the schema is no Avro schema: %w", err)
	}
	c := avroCompiler{
		format: f, definitions: map[string]*avro.SchemaNode{}, spaces: map[*avro.SchemaNode]string{},
		types: map[*avro.SchemaNode]*avroType{}, steps: map[avroPlace]*avroStep{},
	}
	root := parsed.Root()
	c.define(root, "")
	way := c.step(root, path, "")
	c.findEmpty()
	return avroReader{way}, nil
}

// avroCompiler makes types and steps of the library's tree, in which a name
// stands for what was defined before it, often for what is around it.
type avroCompiler struct {
	format      format
	definitions map[string]*avro.SchemaNode
	spaces      map[*avro.SchemaNode]string // in which names are looked up
	types       map[*avro.SchemaNode]*avroType
	steps       map[avroPlace]*avroStep
}

// avroPlace is a node that is come to with some names of the path left. By
// references, a short schema can lead to few of them in very many ways.
type avroPlace struct {
	node    *avro.SchemaNode
	left    int
	logical string
}

// define collects the definitions in a tree.
func (c *avroCompiler) define(n *avro.SchemaNode, space string) {
	if n.Name != "" {
		full := n.Name
		if !strings.Contains(full, ".") && n.Namespace != "" {
			full = n.Namespace + "." + full
		}
		c.definitions[full] = n
		space = full[:max(strings.LastIndexByte(full, '.'), 0)]
	}
	c.spaces[n] = space
	for i := range n.Fields {
		c.define(&n.Fields[i].Type, space)
	}
	for i := range n.Branches {
		c.define(&n.Branches[i], space)
	}
	for _, child := range []*avro.SchemaNode{n.Items, n.Values} {
		if child != nil {
			c.define(child, space)
		}
	}
}

// resolve returns what a node stands for.
func (c *avroCompiler) resolve(n *avro.SchemaNode) *avro.SchemaNode {
	if _, ok := avroKinds[n.Type]; ok {
		return n
	}
	if space := c.spaces[n]; space != "" && !strings.Contains(n.Type, ".") {
		if d := c.definitions[space+"."+n.Type]; d != nil {
			return d
		}
	}
	if d := c.definitions[n.Type]; d != nil {
		return d
	}
	panic("no definition of " + n.Type) // the library has checked that
}

// typeOf returns the type of a node. A recursive one contains itself.
func (c *avroCompiler) typeOf(n *avro.SchemaNode) *avroType {
	n = c.resolve(n)
	if t := c.types[n]; t != nil {
		return t
	}
	t := &avroType{kind: avroKinds[n.Type], size: n.Size}
	c.types[n] = t
	for i := range n.Fields {
		t.parts = append(t.parts, c.typeOf(&n.Fields[i].Type))
	}
	for i := range n.Branches {
		t.parts = append(t.parts, c.typeOf(&n.Branches[i]))
	}
	for _, child := range []*avro.SchemaNode{n.Items, n.Values} {
		if child != nil {
			t.parts = append(t.parts, c.typeOf(child))
		}
	}
	return t
}

// findEmpty marks the types whose values take no bytes: what is skipped of them
// costs nothing, however many the value says there are.
func (c *avroCompiler) findEmpty() {
	for changed := true; changed; {
		changed = false
		for _, t := range c.types {
			empty := t.kind == avroNull || t.kind == avroFixed && t.size == 0 || t.kind == avroRecord
			for _, part := range t.parts {
				empty = empty && part.empty
			}
			if empty && !t.empty {
				t.empty, changed = true, true
			}
		}
	}
}

// avroStep is one step on the way to the field.
type avroStep struct {
	kind     avroKind
	before   []*avroType // in a record: what comes before the field
	next     *avroStep   // the field itself, or the map's value
	key      string      // in a map
	value    *avroType   // of the map
	branches []*avroStep // of a union
	unit     format      // of a number
	size     int         // of a fixed
	why      string      // instead: what makes the field unusable
	absent   bool
}

// step returns the way along a path from a node on. logical is what its field says
// of it: a logicalType belongs into the type, but is often written beside it.
func (c *avroCompiler) step(n *avro.SchemaNode, path []string, logical string) *avroStep {
	n = c.resolve(n)
	at := avroPlace{n, len(path), logical}
	if s := c.steps[at]; s != nil {
		return s
	}
	s := &avroStep{kind: avroKinds[n.Type], size: n.Size}
	c.steps[at] = s
	switch {
	case s.kind == avroUnion:
		for i := range n.Branches {
			s.branches = append(s.branches, c.step(&n.Branches[i], path, logical))
		}
	case s.kind == avroNull:
		s.absent = true
	case len(path) == 0:
		if n.LogicalType != "" {
			logical = n.LogicalType
		}
		s.unit, s.why = c.leaf(n.Type, logical)
	case s.kind == avroMap:
		s.key, s.value, s.next = path[0], c.typeOf(n.Values), c.step(n.Values, path[1:], "")
	case s.kind == avroRecord:
		for i := range n.Fields {
			if n.Fields[i].Name == path[0] {
				beside, _ := n.Fields[i].Props["logicalType"].(string)
				s.next = c.step(&n.Fields[i].Type, path[1:], beside)
				return s
			}
			s.before = append(s.before, c.typeOf(&n.Fields[i].Type))
		}
		s.absent = true
	default:
		s.absent = true
	}
	return s
}

// leaf says how a field of a type is read, or why it cannot be. What the schema
// says of the unit comes first.
func (c *avroCompiler) leaf(kind, logical string) (unit format, why string) {
	switch kind {
	case "int", "long":
		return c.number(kind, logical)
	case "string":
		return c.format, ""
	case "bytes", "fixed":
		if c.format == int64BE && logical == "" {
			return int64BE, ""
		}
		return "", "is of type " + describe(kind, logical) + ", which is no time; 8 bytes are one with the format int64-be"
	case "float", "double":
		return "", "is a " + kind + ", which rounds: a time in it is not exact"
	}
	return "", "is of type " + describe(kind, logical) + ", which is no time"
}

func describe(kind, logical string) string {
	if logical == "" {
		return kind
	}
	return kind + " (" + logical + ")"
}

func (c *avroCompiler) number(kind, logical string) (unit format, why string) {
	scale, local := strings.CutPrefix(logical, "local-")
	switch scale {
	case "timestamp-millis":
		unit = unixMillis
	case "timestamp-micros":
		unit = unixMicros
	case "timestamp-nanos":
		unit = unixNanos
	case "date", "time-millis", "time-micros":
		return "", "is of type " + describe(kind, logical) + ", which is no point in time"
	default: // readers ignore a logical type that they do not know
		return c.format, ""
	}
	if local && c.format != unit {
		return "", fmt.Sprintf("is a %s, whose time zone is not known; the format %s, written out, reads it as UTC", logical, unit)
	}
	return unit, ""
}
