package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"time"
)

// The variables that code speaks of.
const (
	keyBrokers            = Prefix + "BROKERS"
	keyTopics             = Prefix + "TOPICS"
	keyGroup              = Prefix + "GROUP"
	keyInstance           = Prefix + "INSTANCE"
	keyMaxOutOfOrderness  = Prefix + "MAX_OUT_OF_ORDERNESS"
	keyMinOutOfOrderness  = Prefix + "MIN_OUT_OF_ORDERNESS"
	keyTargetLate         = Prefix + "TARGET_LATE"
	keyWatermark          = Prefix + "WATERMARK"
	keyWatermarkWindow    = Prefix + "WATERMARK_WINDOW"
	keyWatermarkLateness  = Prefix + "WATERMARK_LATENESS"
	keyWatermarkHeader    = Prefix + "WATERMARK_HEADER"
	keyIdleTimeout        = Prefix + "IDLE_TIMEOUT"
	keyMaxFuture          = Prefix + "MAX_FUTURE"
	keyClockHeader        = Prefix + "CLOCK_HEADER"
	keyReanchorAfter      = Prefix + "REANCHOR_AFTER"
	keyMaxDrift           = Prefix + "MAX_DRIFT"
	keyDedup              = Prefix + "DEDUP"
	keyDuplicates         = Prefix + "DUPLICATES"
	keyDedupRemember      = Prefix + "DEDUP_REMEMBER"
	keyCommitInterval     = Prefix + "COMMIT_INTERVAL"
	keySessionTimeout     = Prefix + "SESSION_TIMEOUT"
	keyTransactionTimeout = Prefix + "TRANSACTION_TIMEOUT"
	keyStart              = Prefix + "START"
	keyMemory             = Prefix + "MEMORY"
	keyOrderedSuffix      = Prefix + "ORDERED_SUFFIX"
	keyLateSuffix         = Prefix + "LATE_SUFFIX"
	keyHeaderPrefix       = Prefix + "HEADER_PREFIX"
	keyTLS                = Prefix + "TLS"
	keyTLSCAFile          = Prefix + "TLS_CA_FILE"
	keyTLSCertFile        = Prefix + "TLS_CERT_FILE"
	keyTLSKeyFile         = Prefix + "TLS_KEY_FILE"
	keyTLSServerName      = Prefix + "TLS_SERVER_NAME"
	keyMechanism          = Prefix + "SASL_MECHANISM"
	keyUsername           = Prefix + "SASL_USERNAME"
	keyPassword           = Prefix + "SASL_PASSWORD"
	keyPasswordFile       = Prefix + "SASL_PASSWORD_FILE"
	keyTokenFile          = Prefix + "SASL_TOKEN_FILE"
	keyTokenURL           = Prefix + "SASL_TOKEN_URL"
	keyTokenCAFile        = Prefix + "SASL_TOKEN_CA_FILE"
	keyClientID           = Prefix + "SASL_CLIENT_ID"
	keyClientSecret       = Prefix + "SASL_CLIENT_SECRET"
	keyClientSecretFile   = Prefix + "SASL_CLIENT_SECRET_FILE"
	keyScopes             = Prefix + "SASL_SCOPES"
	keyExtensions         = Prefix + "SASL_EXTENSIONS"

	keyAdmin             = Prefix + "ADMIN"
	keyAdminTLSCertFile  = Prefix + "ADMIN_TLS_CERT_FILE"
	keyAdminTLSKeyFile   = Prefix + "ADMIN_TLS_KEY_FILE"
	keyAdminUsername     = Prefix + "ADMIN_USERNAME"
	keyAdminPassword     = Prefix + "ADMIN_PASSWORD"
	keyAdminPasswordFile = Prefix + "ADMIN_PASSWORD_FILE"

	keyEventTime             = Prefix + "EVENT_TIME"
	keyRegistry              = Prefix + "SCHEMA_REGISTRY"
	keyRegistryUsername      = Prefix + "SCHEMA_REGISTRY_USERNAME"
	keyRegistryPassword      = Prefix + "SCHEMA_REGISTRY_PASSWORD"
	keyRegistryPasswordFile  = Prefix + "SCHEMA_REGISTRY_PASSWORD_FILE"
	keyRegistryToken         = Prefix + "SCHEMA_REGISTRY_TOKEN"
	keyRegistryTokenFile     = Prefix + "SCHEMA_REGISTRY_TOKEN_FILE"
	keyRegistryTLSCAFile     = Prefix + "SCHEMA_REGISTRY_TLS_CA_FILE"
	keyRegistryTLSCertFile   = Prefix + "SCHEMA_REGISTRY_TLS_CERT_FILE"
	keyRegistryTLSKeyFile    = Prefix + "SCHEMA_REGISTRY_TLS_KEY_FILE"
	keyRegistryTLSServerName = Prefix + "SCHEMA_REGISTRY_TLS_SERVER_NAME"
)

// setting is what the declaration of a field of Config says.
type setting struct {
	key      string
	field    int    // index in Config
	fallback string // default, or in words what takes its place
	group    string // heading, on the first of a group
}

// secret reports whether the value is never shown.
func (s setting) secret() bool {
	return reflect.TypeFor[Config]().Field(s.field).Type == reflect.TypeFor[Secret]()
}

// settings are the fields of Config in their order.
var settings = declared()

// keyOfField maps names of fields to variables.
var keyOfField = fieldKeys()

func declared() []setting {
	var all []setting
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		name := tag.Get("env")
		if name == "" {
			continue
		}
		fallback := tag.Get("envDefault") + tag.Get("unset") // never both
		all = append(all, setting{Prefix + name, i, fallback, tag.Get("group")})
	}
	return all
}

func fieldKeys() map[string]string {
	keys := map[string]string{}
	for _, s := range settings {
		keys[reflect.TypeFor[Config]().Field(s.field).Name] = s.key
	}
	return keys
}

// Setting is a variable with the value that is in effect.
type Setting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`          // as it could be set; stars for a secret
	Default bool   `json:"default"`        // nobody set it
	Note    string `json:"note,omitempty"` // where a value that was not set came from
	Doc     string `json:"-"`              // what the reference says, as Markdown
}

// Effective returns every setting with its value, in the order of the
// reference. Secrets are masked.
func (c Config) Effective() []Setting {
	var all []Setting
	docs := comments()
	for _, s := range settings {
		field := reflect.ValueOf(c).Field(s.field)
		note := c.origins[s.key]
		all = append(all, Setting{
			Key:     s.key,
			Value:   show(field.Interface()),
			Default: strings.HasPrefix(note, "default"),
			Note:    note,
			Doc:     docs[reflect.TypeFor[Config]().Field(s.field).Name],
		})
	}
	return all
}

// show returns a value as it would be written in a variable.
func show(value any) string {
	switch v := value.(type) {
	case []string:
		return strings.Join(v, ",")
	case time.Duration:
		return shortDuration(v)
	}
	return fmt.Sprint(value)
}

// shortDuration leaves out the zeros of 5m0s and 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

//go:embed config.go
var source string

// comments returns the comment above every field of Config, on one line each:
// so the manual and the code cannot part ways.
func comments() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments)
	if err != nil {
		panic(err) // it compiled
	}
	docs := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if field, ok := n.(*ast.Field); ok && field.Doc != nil {
			docs[field.Names[0].Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
		}
		return true
	})
	return docs
}

const preface = `# Configuration

Tidemark is configured by environment variables. A variable that is set to
nothing counts as not set. Spaces around a value are left out, and so is the CR at the end
of a line from Windows; quotes around it and comments behind it are refused. Durations are written as in Go (` + "`100ms`, `5s`, `1m30s`" + `),
sizes with their unit (` + "`256MiB`" + `). All faults are reported at once, and an unknown
variable that begins with ` + "`TIDEMARK_`" + ` is one, unless Kubernetes sets it for a
Service called tidemark. ` + "`tidemark config`" + ` prints what is in effect.

<!-- Generated by tidemark config --docs. The text is that of the comments in proxy/config/config.go. -->
`

// Docs returns the reference of all variables, as Markdown.
func Docs() string {
	var b strings.Builder
	b.WriteString(preface)
	docs := comments()
	for _, s := range settings {
		if s.group != "" {
			fmt.Fprintf(&b, "\n## %s\n\n| variable | default | |\n|---|---|---|\n", s.group)
		}
		doc := docs[reflect.TypeFor[Config]().Field(s.field).Name]
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.key, s.fallbackCell(), strings.ReplaceAll(doc, "|", `\|`))
	}
	return b.String()
}

// fallbackCell shows a default as it would be written, and words as words.
func (s setting) fallbackCell() string {
	if _, words := reflect.TypeFor[Config]().Field(s.field).Tag.Lookup("unset"); words || s.fallback == "" {
		return s.fallback
	}
	return "`" + s.fallback + "`"
}
