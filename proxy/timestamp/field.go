package timestamp

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/watermark"
)

// A value in Avro or Protobuf names the schema that it was written with (frame.go); a
// registry has the schemas. They are compiled, once, into readers:
// ways through a value to the one field that is wanted.

// family is a kind of schema, by the name of its source.
type family string

const (
	avroFamily     family = "avro"
	protobufFamily family = "protobuf"
)

// Schema is a schema as a registry has it.
type Schema struct {
	Type       string // AVRO, PROTOBUF or JSON
	Text       string
	References []Reference // all of them, also those of others; each after those it refers to
}

// Reference is a schema that another one refers to.
type Reference struct {
	Name string // what it is called there: a full name, or what is imported
	Text string
}

// Schemas knows the readers of schemas. It is safe for use by several goroutines.
type Schemas interface {
	// Readers returns what Compile has made of the schema with an id. It never
	// waits: the error is a *Pending while the schema is being asked for, and
	// wraps ErrUnknownSchema where the registry says that there is none.
	Readers(id SchemaID) (*Readers, error)
}

// ErrUnknownSchema says that the schema registry knows no schema with the id that
// stands in a value. It may have one later: the verdict is not a function of the
// record alone.
var ErrUnknownSchema = errors.New("the schema registry has no such schema")

// SchemaError says that a value with a schema has no usable event time: the registry
// does not have the schema, and then ErrUnknownSchema is wrapped, or schema and value
// cannot be used.
type SchemaError struct {
	ID  SchemaID
	err error
}

func (e *SchemaError) Error() string { return e.err.Error() }

// Unwrap returns the cause, which wraps ErrInvalid.
func (e *SchemaError) Unwrap() error { return e.err }

// Unknown reports whether the registry does not have the schema.
func (e *SchemaError) Unknown() bool { return errors.Is(e.err, ErrUnknownSchema) }

// Pending says that a record cannot be judged before its schema is known.
type Pending struct {
	ID SchemaID
}

func (p *Pending) Error() string { return fmt.Sprintf("schema %s is not known yet", p.ID) }

// Readers are the ways to the fields of one schema, one for each of the
// extractor's sources that need schemas.
type Readers struct {
	of []reader // nil: the schema is not of the source's family
}

// reader finds the event time in a value. Why says what is wrong with a field that is
// present.
type reader interface {
	read(in frame) (t watermark.Time, present bool, why string)
}

// broken is the reader of a schema that cannot be read with.
type broken struct{ why string }

func (b broken) read(frame) (watermark.Time, bool, string) { return watermark.None, true, b.why }

// field is a field of a value with a schema. Absent is a field that the schema does
// not have or that is null or not set in the value; all fields of a tombstone; and
// those of a value with a schema of another family.
type field struct {
	family   family
	path     string
	names    []string
	format   format
	index    int // among those that need schemas
	schemas  Schemas
	registry RegistryKind
}

func parseField(text string, fam family, path string, f format) (source, error) {
	names := strings.Split(path, ".")
	for _, n := range names {
		if n == "" {
			return nil, fmt.Errorf("%s: a name in the path is empty", text)
		}
	}
	if len(names) > longestPath {
		return nil, fmt.Errorf("%s: a path may have %d names", text, longestPath)
	}
	return &field{family: fam, path: path, names: names, format: f}, nil
}

func (f *field) String() string {
	if f.format == unwritten {
		return f.place()
	}
	return f.place() + ":" + string(f.format)
}

func (f *field) place() string { return string(f.family) + ":" + f.path }

func (f *field) time(r *kgo.Record) (t watermark.Time, present bool, err error) {
	if r.Value == nil {
		return watermark.None, false, nil
	}
	in, why := f.registry.frameOf(r)
	if why != "" {
		return watermark.None, true, f.noSchema(r, why)
	}
	readers, err := f.schemas.Readers(in.id)
	switch {
	case errors.Is(err, ErrUnknownSchema):
		return watermark.None, true, &SchemaError{in.id, fmt.Errorf("%w: schema %s: %w (looked for %s)", ErrInvalid, in.id, err, f.place())}
	case err != nil:
		return watermark.None, true, err
	}
	way := readers.of[f.index]
	if way == nil {
		return watermark.None, false, nil
	}
	t, present, why = way.read(in)
	if why == "" {
		return t, present, nil
	}
	return watermark.None, true, &SchemaError{in.id, fmt.Errorf("%w: schema %s: %s %s", ErrInvalid, in.id, f.place(), why)}
}

// SchemaOf returns the id of the schema that a value was written with, where a source
// would ask for it.
func (e *Extractor) SchemaOf(r *kgo.Record) (id SchemaID, ok bool) {
	if r.Value == nil {
		return SchemaID{}, false
	}
	f, why := e.registry.frameOf(r)
	return f.id, why == ""
}

func (f *field) noSchema(r *kgo.Record, why string) error {
	return fmt.Errorf("%w: the value (%s) %s (looked for %s)", ErrInvalid, emit.KindOf(r.Value), why, f.place())
}

// NeedsSchemas reports whether there are sources that cannot do without a schema
// registry.
func (e *Extractor) NeedsSchemas() bool { return len(e.fields()) > 0 }

// fields returns the sources that need schemas.
func (e *Extractor) fields() (all []*field) {
	for _, s := range e.sources {
		if f, ok := s.(*field); ok {
			all = append(all, f)
		}
	}
	return all
}

// With returns an extractor that gets its schemas from there. Without it, a source
// that needs them must not be asked.
func (e *Extractor) With(schemas Schemas) *Extractor {
	bound := &Extractor{registry: e.registry}
	n := 0
	for _, s := range e.sources {
		if f, ok := s.(*field); ok {
			with := *f
			with.schemas, with.index, with.registry = schemas, n, e.registry
			s = &with
			n++
		}
		bound.sources = append(bound.sources, s)
	}
	return bound
}

// Asking returns an extractor for values of the serializers of a kind of registry. By
// another kind, the same bytes are another schema's, or none's.
func (e *Extractor) Asking(kind RegistryKind) *Extractor {
	return &Extractor{sources: e.sources, registry: kind}
}

// Bounds of a schema. Beyond them it counts as one that cannot be read with.
const (
	// MaxSchema is the most that a schema may have with all that it refers to,
	// in bytes.
	MaxSchema = 1 << 20
	// deepestSchema is how deeply its text may be nested.
	deepestSchema = 200
	// longestName is how long the full name of a type may be, in bytes: that of what it is
	// in is a part of each.
	longestName = 1000
)

// Compile makes readers of a schema, one for each source that needs schemas. A
// schema that cannot be compiled has readers that say so.
func (e *Extractor) Compile(s Schema) *Readers {
	made := new(Readers)
	for _, f := range e.fields() {
		made.of = append(made.of, f.compile(s))
	}
	return made
}

// Unusable returns what Compile returns of a schema of which no more is known than
// what is wrong with it.
func (e *Extractor) Unusable(why string) *Readers {
	made := new(Readers)
	for range e.fields() {
		made.of = append(made.of, broken{"cannot be read: " + why})
	}
	return made
}

func (f *field) compile(s Schema) (way reader) {
	defer func() {
		// Two large libraries read what others wrote.
		if p := recover(); p != nil {
			way = broken{fmt.Sprintf("cannot be read: the schema made its compiler panic: %v", p)}
		}
	}()
	size := len(s.Text)
	for _, r := range s.References {
		size += len(r.Text)
	}
	var err error
	switch {
	case size > MaxSchema:
		err = fmt.Errorf("the schema has %d bytes, which is more than %d", size, MaxSchema)
	case s.Type == "AVRO" && f.family == avroFamily:
		way, err = compileAvro(s, f.names, f.format)
	case s.Type == "PROTOBUF" && f.family == protobufFamily:
		way, err = compileProtobuf(s, f.names, f.format)
	default:
		return nil
	}
	if err != nil {
		return broken{"cannot be read: " + err.Error()}
	}
	return way
}
