package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// Apicurio's registry has an API of its own, in two versions, and speaks Confluent's
// protocol under another path. Its serializers write global ids (version 2) or ids of
// contents (version 3), which only its own API knows apart.

var (
	apicurioAPI    = regexp.MustCompile(`/apis/registry/(v[23])/?$`)
	apicurioCompat = regexp.MustCompile(`/apis/ccompat/v[0-9]+/?$`)
)

// KindOf returns the kind of the registry at a URL, which its path says.
func KindOf(url string) timestamp.RegistryKind {
	api := apicurioAPI.FindStringSubmatch(url)
	switch {
	case apicurioCompat.MatchString(url):
		return timestamp.ApicurioCompat
	case api == nil:
		return timestamp.Confluent
	case api[1] == "v2":
		return timestamp.ApicurioGlobal
	}
	return timestamp.ApicurioContent
}

// apicurio is Apicurio's own API on a server.
type apicurio struct {
	cl      *sr.Client // for its requests, login and errors
	content string     // what version 3 has behind the path of a version
}

// newApicurio returns the API of the server at a URL, or nil if that is not Apicurio's.
func newApicurio(at string, opts []sr.ClientOpt, web http.Client) (*apicurio, error) {
	kind := KindOf(at)
	if kind == timestamp.Confluent {
		return nil, nil
	}
	web.Transport = anyType{web.Transport}
	cl, err := sr.NewClient(append(opts, sr.URLs(apicurioCompat.ReplaceAllString(at, "/apis/registry/v2")), sr.HTTPClient(&web))...)
	a := &apicurio{cl: cl}
	if kind == timestamp.ApicurioContent {
		a.content = "/content"
	}
	return a, err
}

// anyType asks for answers of any type: the client asks for Confluent's.
type anyType struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a anyType) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", "*/*")
	return a.RoundTripper.RoundTrip(req)
}

func (a *apicurio) byID(ctx context.Context, kind string, id timestamp.SchemaID) (timestamp.Schema, []reference, error) {
	at := fmt.Sprintf("/ids/%s/%d", kind, id.Number)
	text, refs, err := a.get(ctx, at, at+"/references")
	return timestamp.Schema{Type: timestamp.TypeOf(text), Text: text}, refs, err
}

// get returns a text and what it refers to.
func (a *apicurio) get(ctx context.Context, text, references string) (string, []reference, error) {
	var body []byte
	if err := a.cl.Do(ctx, http.MethodGet, text, nil, &body); err != nil {
		return "", nil, err
	}
	var all []struct{ GroupID, ArtifactID, Version, Name string }
	if err := a.cl.Do(ctx, http.MethodGet, references, nil, &all); err != nil {
		return "", nil, err
	}
	var refs []reference
	for _, r := range all {
		group := r.GroupID
		if group == "" {
			group = "default"
		}
		at := "/groups/" + url.PathEscape(group) + "/artifacts/" + url.PathEscape(r.ArtifactID) + "/versions/" + url.PathEscape(r.Version)
		refs = append(refs, reference{r.Name, fmt.Sprintf("group %s, artifact %s, version %s", group, r.ArtifactID, r.Version), func(ctx context.Context) (string, []reference, error) {
			return a.get(ctx, at+a.content, at+"/references")
		}})
	}
	return string(body), refs, nil
}

// apicurioLacks reports whether an answer is Apicurio's own way of saying that it has no
// such schema: it names its exception. The one without a word before it says that a path
// leads nowhere.
func apicurioLacks(answer *sr.ResponseError) bool {
	var says struct{ Name string }
	return json.Unmarshal(answer.Raw, &says) == nil && strings.HasSuffix(says.Name, "NotFoundException") && says.Name != "NotFoundException"
}
