package timestamp

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile/options"
	"github.com/bufbuild/protocompile/parser"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/anypb" // for what schemas import
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
)

// A schema is read for its layout: its files are parsed one by one, and a type is looked
// up only where the way to the field leads through it. What is imported for anything else
// (options, extensions, fields beside the way) may be missing, as it is in registries:
// serializers do not register google/type/*, confluent/* and the like.

// protoLayout is what a schema and its references define.
type protoLayout struct {
	main  *descriptorpb.FileDescriptorProto
	types map[string]*protoType // by full name
	ours  bool                  // what is defined from now on is not from the registry
	ways  map[protoPlace]*protoStep
}

// protoType is a message or an enum.
type protoType struct {
	name    string // in full
	message *descriptorpb.DescriptorProto
	enum    *descriptorpb.EnumDescriptorProto
	groups  bool // its fields that are messages are groups, unless they say otherwise
}

// mainFile is what the schema itself is called. None that is imported is.
const mainFile = "\x00"

// knownFiles are those of the imports without references that a way to a time can lead
// through, beside the ones that the library has.
var knownFiles = map[string]string{
	"google/type/interval.proto": `syntax = "proto3"; package google.type; import "google/protobuf/timestamp.proto";
		message Interval { google.protobuf.Timestamp start_time = 1; google.protobuf.Timestamp end_time = 2; }`,
}

func protoLayoutOf(s Schema) (*protoLayout, error) {
	l := &protoLayout{types: map[string]*protoType{}, ways: map[protoPlace]*protoStep{}}
	main, err := parseProto(mainFile, s.Text)
	if err != nil {
		return nil, err
	}
	l.main = main
	files := map[string]*descriptorpb.FileDescriptorProto{mainFile: main}
	for _, r := range s.References {
		if files[r.Name], err = parseProto(r.Name, r.Text); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := l.define(files[name]); err != nil {
			return nil, fmt.Errorf("the schema is no Protobuf schema: %w", err)
		}
	}
	return l, l.imports(files)
}

// parseProto parses one file, and makes of its options what they say of the layout.
func parseProto(name, text string) (*descriptorpb.FileDescriptorProto, error) {
	if protoTooDeep(text) {
		return nil, fmt.Errorf("the schema %q is nested more than %d times", strings.TrimPrefix(name, mainFile), deepestSchema)
	}
	handler := reporter.NewHandler(reporter.NewReporter(nil, nil))
	ast, err := parser.Parse(name, strings.NewReader(text), handler)
	var parsed parser.Result
	if err == nil {
		parsed, err = parser.ResultFromAST(ast, false, handler)
	}
	if err == nil {
		err = checkNames(parsed.FileDescriptorProto().GetMessageType(), len(parsed.FileDescriptorProto().GetPackage()))
	}
	if err == nil {
		_, err = options.InterpretUnlinkedOptions(parsed)
	}
	if err != nil {
		return nil, fmt.Errorf("the schema is no Protobuf schema: %s", strings.ReplaceAll(err.Error(), mainFile, "schema"))
	}
	return parsed.FileDescriptorProto(), nil
}

// checkNames bounds the full names of messages inside of what has a length already: the
// library makes one for everything in them.
func checkNames(all []*descriptorpb.DescriptorProto, inside int) error {
	for _, d := range all {
		length := inside + 1 + len(d.GetName())
		if length > longestName {
			return fmt.Errorf("a name has more than %d bytes", longestName)
		}
		if err := checkNames(d.GetNestedType(), length); err != nil {
			return err
		}
	}
	return nil
}

// imports adds what is imported without being a reference, as far as we have it.
func (l *protoLayout) imports(files map[string]*descriptorpb.FileDescriptorProto) error {
	l.ours = true
	missing := slices.Collect(maps.Values(files))
	for len(missing) > 0 {
		file := missing[0]
		missing = missing[1:]
		for _, name := range file.GetDependency() {
			if files[name] != nil {
				continue
			}
			if text, known := knownFiles[name]; known {
				parsed, err := parseProto(name, text)
				if err != nil {
					return err
				}
				files[name] = parsed
			} else if known, err := protoregistry.GlobalFiles.FindFileByPath(name); err == nil && strings.HasPrefix(name, "google/protobuf/") {
				files[name] = protodesc.ToFileDescriptorProto(known)
			} else {
				continue
			}
			if err := l.define(files[name]); err != nil {
				return err
			}
			missing = append(missing, files[name])
		}
	}
	return nil
}

func (l *protoLayout) define(file *descriptorpb.FileDescriptorProto) error {
	groups := delimited(false, file.GetOptions().GetFeatures())
	for _, e := range file.GetEnumType() {
		if err := l.add(&protoType{name: fullName(e.GetName(), file.GetPackage()), enum: e}); err != nil {
			return err
		}
	}
	return l.messages(file.GetMessageType(), file.GetPackage(), groups)
}

func (l *protoLayout) messages(all []*descriptorpb.DescriptorProto, scope string, groups bool) error {
	for _, d := range all {
		m := &protoType{name: fullName(d.GetName(), scope), message: d, groups: delimited(groups, d.GetOptions().GetFeatures())}
		if err := l.add(m); err != nil {
			return err
		}
		for _, e := range d.GetEnumType() {
			if err := l.add(&protoType{name: fullName(e.GetName(), m.name), enum: e}); err != nil {
				return err
			}
		}
		if err := l.messages(d.GetNestedType(), m.name, m.groups); err != nil {
			return err
		}
	}
	return nil
}

// add makes a type known. Two meanings of one name are refused; the registry's own comes
// before ours.
func (l *protoLayout) add(t *protoType) error {
	earlier := l.types[t.name]
	if earlier != nil && l.ours {
		return nil
	}
	if earlier != nil && (!proto.Equal(earlier.message, t.message) || !proto.Equal(earlier.enum, t.enum)) {
		return fmt.Errorf("%s is defined twice", t.name)
	}
	l.types[t.name] = t
	return nil
}

// delimited reports whether messages are written as groups, which editions decide for a
// file, a message or a field.
func delimited(around bool, f *descriptorpb.FeatureSet) bool {
	switch f.GetMessageEncoding() {
	case descriptorpb.FeatureSet_DELIMITED:
		return true
	case descriptorpb.FeatureSet_LENGTH_PREFIXED:
		return false
	}
	return around
}

// field returns the field of a message with a name, or nil.
func (t *protoType) field(name string) *descriptorpb.FieldDescriptorProto {
	for _, fd := range t.message.GetField() {
		if fd.GetName() == name {
			return fd
		}
	}
	return nil
}

// rivals returns the other members of a field's oneof, sorted.
func (t *protoType) rivals(of *descriptorpb.FieldDescriptorProto) (numbers []protoreflect.FieldNumber) {
	for _, fd := range t.message.GetField() {
		if of.OneofIndex != nil && fd.OneofIndex != nil && fd.GetOneofIndex() == of.GetOneofIndex() && fd != of {
			numbers = append(numbers, protoreflect.FieldNumber(fd.GetNumber()))
		}
	}
	slices.Sort(numbers)
	return numbers
}

func (t *protoType) isEntry() bool { return t.message.GetOptions().GetMapEntry() }

// kindOf returns the kind of a field that is of this type.
func (t *protoType) kindOf(in *protoType, fd *descriptorpb.FieldDescriptorProto) protoreflect.Kind {
	switch {
	case t.enum != nil:
		return protoreflect.EnumKind
	case t.isEntry() || in.isEntry(): // which are never groups
		return protoreflect.MessageKind
	case fd.GetType() == descriptorpb.FieldDescriptorProto_TYPE_GROUP, delimited(in.groups, fd.GetOptions().GetFeatures()):
		return protoreflect.GroupKind
	}
	return protoreflect.MessageKind
}

// typeOf returns the message or enum that a field of a message is of. A name is looked for
// in the message, then in what is around it. Nothing is wrong with a field that is of
// neither.
func (l *protoLayout) typeOf(m *protoType, fd *descriptorpb.FieldDescriptorProto) (of *protoType, why string) {
	name := fd.GetTypeName()
	if name == "" {
		return nil, ""
	}
	if full, is := strings.CutPrefix(name, "."); is {
		of = l.types[full]
	}
	for scope := m.name; of == nil && !strings.HasPrefix(name, "."); {
		of = l.types[strings.TrimPrefix(scope+"."+name, ".")]
		if scope == "" {
			break
		}
		scope = scope[:max(strings.LastIndexByte(scope, '.'), 0)]
	}
	if of == nil {
		return nil, "is or leads through a " + strings.TrimPrefix(name, ".") + ", which neither the schema nor one of its references defines; " +
			"register the file that it is in, and refer to it"
	}
	return of, ""
}
