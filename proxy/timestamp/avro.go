package timestamp

import (
	"fmt"
	"slices"
	"strings"
)

// A value is read up to the field that is wanted and no further, past everything
// before it without making anything of it. A library's way through a value is the
// twin in the tests.
//
//	record  | before | the field |  never looked at  |
//	          skip     step

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
	root, err := layoutOf(s)
	if err != nil {
		return nil, err
	}
	c := avroCompiler{format: f, steps: map[avroPlace]*avroStep{}}
	return avroReader{c.step(root, path, "")}, nil
}

// avroCompiler makes steps of types, which often contain themselves.
type avroCompiler struct {
	format format
	steps  map[avroPlace]*avroStep
}

// avroPlace is a type that is come to with some names of the path left. By
// references, a short schema can lead to few of them in very many ways.
type avroPlace struct {
	of      *avroType
	left    int
	logical string
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
	clock    format      // what may name the zone of one that a wall clock shows
	size     int         // of a fixed
	why      string      // instead: what makes the field unusable
	absent   bool
}

// step returns the way along a path from a type on. logical is what its field says
// of it: a logicalType belongs into the type, but is often written beside it.
func (c *avroCompiler) step(t *avroType, path []string, logical string) *avroStep {
	at := avroPlace{t, len(path), logical}
	if s := c.steps[at]; s != nil {
		return s
	}
	s := &avroStep{kind: t.kind, size: t.size}
	c.steps[at] = s
	switch {
	case s.kind == avroUnion:
		for _, branch := range t.parts {
			s.branches = append(s.branches, c.step(branch, path, logical))
		}
	case s.kind == avroNull:
		s.absent = true
	case len(path) == 0:
		if t.logical != "" {
			logical = t.logical
		}
		logical = validLogical(t.word, logical)
		if s.unit, s.why = c.leaf(t.word, logical); strings.HasPrefix(logical, "local-") {
			s.clock = c.format
		}
	case s.kind == avroMap:
		s.key, s.value, s.next = path[0], t.parts[0], c.step(t.parts[0], path[1:], "")
	case s.kind == avroRecord:
		i := slices.Index(t.names, path[0])
		if i < 0 {
			s.absent = true
			return s
		}
		s.before, s.next = withBytes(t.parts[:i]), c.step(t.parts[i], path[1:], t.beside[i])
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
	if local && c.format != unit && !c.format.isLocal() {
		return "", fmt.Sprintf("is a %s, whose time zone is not known; the format %sZONE says which it is", logical, localPrefix)
	}
	return unit, ""
}
