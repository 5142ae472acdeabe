package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caarlos0/env/v11"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// Load reads the configuration from environ, whose entries are of the form
// "KEY=value" as in os.Environ. A variable set to nothing counts as not set.
// The error is an *Error with every fault there is.
func Load(environ []string) (Config, error) {
	vars := env.ToMap(environ)
	var c Config
	f := newFaults()
	f.tidy(vars)
	f.parsing(env.ParseWithOptions(&c, env.Options{Environment: vars, Prefix: Prefix, FuncMap: parsers}))
	c.fill(vars, f)
	c.validate(f)
	f.unknownKeys(vars)
	if err := f.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// tidy leaves out what files of variables put around a value and nobody sees: the CR of
// a file from Windows, spaces, and marks of no width. A secret keeps its spaces, which may be
// its own. Quotes are refused where they come as part of the value, which not all that read
// such files leave them in, and so are comments: without them, the group and its offsets
// would be others.
func (f *faults) tidy(vars map[string]string) {
	for _, s := range settings {
		text, given := vars[s.key]
		if !given {
			continue
		}
		if s.secret() {
			text = strings.TrimRight(text, "\r\n")
		} else {
			text = strings.TrimFunc(text, unseen)
		}
		vars[s.key] = text
		if p, wrong := around(text, s.secret()); wrong {
			f.broken(s.key, p)
			delete(vars, s.key)
		}
	}
}

// unseen reports whether nobody sees a character at the end of a value.
func unseen(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

// around says what stands around a value that is not a part of it.
func around(text string, secret bool) (problem, bool) {
	const inFiles = "docker run --env-file and kubectl --from-env-file take them for a part of the value"
	first, _ := utf8.DecodeRuneInString(text)
	last, size := utf8.DecodeLastRuneInString(text)
	before, behind := strings.ContainsRune(marks, first), strings.ContainsRune(marks, last)
	plain := first == last && (first == '"' || first == '\'')
	switch {
	case len(text) <= size: // it is one character
	case secret && before && behind && (plain || first > unicode.MaxASCII && last > unicode.MaxASCII):
		return problem{"the value is in quotes", "leave them out: " + inFiles + "; a secret that has them is read from a file"}, true
	case secret:
	case before && behind:
		return problem{"the value is in quotes", "leave them out: " + inFiles}, true
	case before, behind:
		return problem{"the value has a quote at one end", "leave it out; entries of a list are not in quotes either"}, true
	case comment.MatchString(text):
		return problem{"the value has a comment behind it", "put the comment into a line of its own: " + inFiles}, true
	}
	return problem{}, false
}

// marks are those that text is put between, of keyboards and of word processors.
const marks = "\"'`\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a\u2033\u2032"

var comment = regexp.MustCompile(`(^|\s)#`)

// defaults are the values of what is not set, where they are fixed.
func defaults() (c Config) {
	if err := env.ParseWithOptions(&c, env.Options{Environment: map[string]string{}, Prefix: Prefix, FuncMap: parsers}); err != nil {
		panic(err) // they stand in the code
	}
	return c
}

// parsers read the types that have no UnmarshalText of their own. They replace
// the library's, whose errors speak of Go and not of what to write.
var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[time.Duration]():       parseDuration,
	reflect.TypeFor[int]():                 parseInt,
	reflect.TypeFor[bool]():                parseBool,
	reflect.TypeFor[[]string]():            parseList,
	reflect.TypeFor[timestamp.Extractor](): parseEventTime,
	reflect.TypeFor[window.Set]():          parseWindows,
}

func parseDuration(text string) (any, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, problem{fmt.Sprintf("%q is not a duration", text), "a number with its unit (ms, s, m or h), like 5s, 100ms or 1m30s; at most 292 years"}
	}
	return d, nil
}

func parseInt(text string) (any, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		what := "is not a whole number"
		if errors.Is(err, strconv.ErrRange) {
			what = "is too large"
		}
		return nil, problem{fmt.Sprintf("%q %s", text, what), "digits alone, like 100000"}
	}
	return n, nil
}

func parseBool(text string) (any, error) {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return nil, problem{fmt.Sprintf("%q is neither true nor false", text), ""}
	}
	return b, nil
}

func parseList(text string) (any, error) {
	list := strings.Split(text, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
		if list[i] == "" {
			return nil, problem{fmt.Sprintf("an entry of %q is empty", text), "separate entries by one comma each, with none at the end"}
		}
	}
	return list, nil
}

func parseEventTime(text string) (any, error) {
	e, err := timestamp.Parse(text)
	if err != nil {
		return nil, err
	}
	return *e, nil
}

func parseWindows(text string) (any, error) { return window.Parse(text) }

// fill gives a value to what has no fixed default, and notes the origin of
// every value that was not set.
func (c *Config) fill(vars map[string]string, f *faults) {
	c.origins = map[string]string{}
	for _, s := range settings {
		if vars[s.key] == "" {
			c.origins[s.key] = "default"
		}
	}
	if vars[keyInstance] == "" {
		c.fillInstance(f)
	}
	if vars[keyMemory] == "" {
		c.Memory, c.origins[keyMemory] = defaultMemory(cgroupMemory, systemMemory)
	}
	if vars[keyMaxFuture] == "" {
		c.MaxFuture, c.origins[keyMaxFuture] = c.defaultMaxFuture()
	}
	if c.EventTime != nil {
		c.origins[keyEventTime] = strings.TrimPrefix(c.origins[keyEventTime]+": "+c.EventTime.Words(), ": ")
	}
	c.aws = awsFrom(vars)
	for _, secret := range c.secrets() {
		if secret.file != "" && vars[secret.key] == "" {
			*secret.value = c.fromFile(secret, f)
		}
	}
}

// secretSetting is a secret that may also be given as a file.
type secretSetting struct {
	key, keyFile string
	value        *Secret
	file         string
}

func (c *Config) secrets() []secretSetting {
	return []secretSetting{
		{keyPassword, keyPasswordFile, &c.SASLPassword, c.SASLPasswordFile},
		{keyClientSecret, keyClientSecretFile, &c.SASLClientSecret, c.SASLClientSecretFile},
		{keyAdminPassword, keyAdminPasswordFile, &c.AdminPassword, c.AdminPasswordFile},
		{keyRegistryPassword, keyRegistryPasswordFile, &c.SchemaRegistryPassword, c.SchemaRegistryPasswordFile},
		{keyRegistryToken, keyRegistryTokenFile, &c.SchemaRegistryToken, c.SchemaRegistryTokenFile},
	}
}

func (c *Config) fillInstance(f *faults) {
	host, err := os.Hostname()
	if err != nil {
		f.broken(keyInstance, problem{"not set, and the host name is not known: " + err.Error(), ""})
	}
	c.Instance, c.origins[keyInstance] = host, "default: the host name"
}

func (c *Config) fromFile(s secretSetting, f *faults) Secret {
	secret, err := readSecret(s.file)
	if err != nil {
		f.broken(s.keyFile, err)
	}
	c.origins[s.key] = "from " + s.keyFile
	return secret
}

// readSecret leaves out the newline that editors and echo put at the end of a
// file. One at the start or in the middle stays, for it may be meant.
func readSecret(file string) (Secret, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Secret{}, errors.New(err.Error()) // without a hint from elsewhere
	}
	text := strings.TrimRight(string(b), "\r\n")
	if text == "" {
		return Secret{}, fmt.Errorf("%s is empty", file)
	}
	return NewSecret(text), nil
}
