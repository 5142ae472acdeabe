package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// Bounds of what a schema may refer to. Registries refuse cycles, but we need not rely on
// that.
const (
	mostReferences    = 200
	deepestReferences = 20
	// mostBytes of an answer. A schema escaped in JSON is larger than the schema.
	mostBytes = 4 * timestamp.MaxSchema
)

// unusableError says that a schema exists but cannot be used.
type unusableError struct{ why string }

func (e *unusableError) Error() string { return e.why }

var errTooMuch = errors.New("the schema registry's answer is too large")

// server is one of the servers of a registry.
type server struct {
	*sr.Client
	native *apicurio // Apicurio's own API, where there is one
}

// fetch asks for a schema and all that it refers to.
func fetch(ctx context.Context, at server, id timestamp.SchemaID) (timestamp.Schema, error) {
	s, refs, err := at.byID(ctx, id)
	if err != nil {
		return timestamp.Schema{}, explain(id, "", err)
	}
	f := fetching{id: id, seen: map[string]bool{}, left: timestamp.MaxSchema}
	if err = f.count(s.Text); err == nil {
		err = f.follow(ctx, refs, 0)
	}
	s.References = f.all
	return s, err
}

func (at server) byID(ctx context.Context, id timestamp.SchemaID) (timestamp.Schema, []reference, error) {
	var s sr.Schema
	var err error
	switch id.Kind {
	case timestamp.ByGlobalID, timestamp.ByContentID:
		if at.native == nil {
			return timestamp.Schema{}, nil, errNoApicurio
		}
	}
	switch id.Kind {
	case timestamp.ByGlobalID:
		return at.native.byID(ctx, "globalIds", id)
	case timestamp.ByContentID:
		return at.native.byID(ctx, "contentIds", id)
	case timestamp.ByGUID:
		var of sr.SubjectSchema
		of, err = at.SchemaByGUID(ctx, id.String())
		s = of.Schema
	default:
		s, err = at.SchemaByID(ctx, int(id.Number))
	}
	return timestamp.Schema{Type: s.Type.String(), Text: s.Schema}, at.references(s.References), err
}

var errNoApicurio = errors.New("the URL in TIDEMARK_SCHEMA_REGISTRY is not that of Apicurio's API")

// reference is a schema that another one refers to.
type reference struct {
	name, where string
	get         func(context.Context) (text string, refs []reference, err error)
}

func (at server) references(all []sr.SchemaReference) (refs []reference) {
	for _, ref := range all {
		refs = append(refs, reference{ref.Name, fmt.Sprintf("subject %s, version %d", ref.Subject, ref.Version), func(ctx context.Context) (string, []reference, error) {
			// Also a deleted one: the schema was written against it.
			s, err := at.SchemaByVersion(sr.WithParams(ctx, sr.ShowDeleted), ref.Subject, ref.Version)
			return s.Schema.Schema, at.references(s.References), err
		}})
	}
	return refs
}

type fetching struct {
	id   timestamp.SchemaID
	seen map[string]bool // by name
	left int             // bytes
	all  []timestamp.Reference
}

func (f *fetching) count(text string) error {
	if f.left -= len(text); f.left < 0 {
		return &unusableError{fmt.Sprintf("the schema and its references have more than %d bytes", timestamp.MaxSchema)}
	}
	return nil
}

// follow fetches references, each after those that it refers to itself.
func (f *fetching) follow(ctx context.Context, refs []reference, depth int) error {
	if depth > deepestReferences {
		return &unusableError{fmt.Sprintf("its references are nested more than %d times", deepestReferences)}
	}
	for _, ref := range refs {
		if f.seen[ref.name] {
			continue
		}
		if f.seen[ref.name] = true; len(f.seen) > mostReferences {
			return &unusableError{fmt.Sprintf("it has more than %d references", mostReferences)}
		}
		text, more, err := ref.get(ctx)
		if err != nil {
			return explain(f.id, fmt.Sprintf(": its reference %s (%s)", ref.name, ref.where), err)
		}
		if err := f.count(text); err != nil {
			return err
		}
		if err := f.follow(ctx, more, depth+1); err != nil {
			return err
		}
		f.all = append(f.all, timestamp.Reference{Name: ref.name, Text: text})
	}
	return nil
}

// RefusedError is an error that the registry answered, and that a retry may not get.
type RefusedError struct {
	Status  int // of HTTP
	message string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the schema registry answered with status %d: %s", e.Status, e.message)
}

// Denied reports whether the registry refused our login.
func (e *RefusedError) Denied() bool {
	return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
}

// explain turns an error of the client into one of three: there is no such schema, the
// schema cannot be used, or there was no answer. reference names the reference that was
// asked for, if it was one.
func explain(id timestamp.SchemaID, reference string, err error) error {
	doing := fmt.Sprintf("ask for schema %s%s", id, reference)
	answer, answered := errors.AsType[*sr.ResponseError](err)
	switch {
	case errors.Is(err, errTooMuch):
		return &unusableError{errTooMuch.Error()}
	case !answered:
		return fmt.Errorf("%s: %w", doing, err)
	case answer.StatusCode == http.StatusNotFound && apicurioLacks(answer):
		return fmt.Errorf("%w%s", timestamp.ErrUnknownSchema, reference)
	case answer.StatusCode == http.StatusNotFound && answer.ErrorCode/100 == 404:
		return fmt.Errorf("%w%s: error %d", timestamp.ErrUnknownSchema, reference, answer.ErrorCode)
	case answer.StatusCode == http.StatusNotFound:
		// A schema registry has error codes for this. Something else answered.
		if id.Kind == timestamp.ByGUID {
			return fmt.Errorf("%s: %w", doing, &RefusedError{answer.StatusCode, "it knows no GUIDs of schemas; a newer registry does, or check the URL in TIDEMARK_SCHEMA_REGISTRY"})
		}
		return fmt.Errorf("%s: %w", doing, &RefusedError{answer.StatusCode, "schema registries do not answer like this; check the URL in TIDEMARK_SCHEMA_REGISTRY (Apicurio's end in /apis/registry/v2, /apis/registry/v3 or /apis/ccompat/v7)"})
	}
	said := "no reason given"
	switch {
	case answer.Message != "":
		said = short(answer.Message)
	case len(answer.Raw) > 0: // a page of something in between
		said = emit.KindOf(answer.Raw)
	}
	return fmt.Errorf("%s: %w", doing, &RefusedError{answer.StatusCode, said})
}

func isNotFound(err error) bool { return errors.Is(err, timestamp.ErrUnknownSchema) }

// short cuts a foreign text for the log.
func short(text string) string {
	const most = 200
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}

// bounded limits the size of answers.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, mostBytes}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read fails after mostBytes.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
