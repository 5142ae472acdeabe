package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// serviceLink matches what Kubernetes sets in every container when there is a
// Service called tidemark in the namespace.
var serviceLink = regexp.MustCompile(`^TIDEMARK_(PORT(_.*)?|SERVICE_HOST|SERVICE_PORT(_.*)?)$`)

// otherServiceLink matches the same for a Service called tidemark-something.
// Those are refused, for they could as well be a slip, but with a word on it.
var otherServiceLink = regexp.MustCompile(`^TIDEMARK_.+_(PORT(_\d+_(TCP|UDP|SCTP).*)?|SERVICE_HOST|SERVICE_PORT(_.*)?)$`)

// unknownKeys refuses every TIDEMARK_ variable that is set and none of ours: it
// is probably misspelt, and what was meant would silently stay at its default.
func (f *faults) unknownKeys(vars map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		if seen := strings.TrimLeft(key, "\ufeff \t"); seen != key && strings.HasPrefix(seen, Prefix) {
			f.add(seen, "its name begins with a byte order mark or a space, so it is not read", "save the file of variables as UTF-8 without a byte order mark")
		}
		if seen := strings.TrimFunc(key, unseen); seen != key && isKnown(seen) && strings.HasPrefix(key, Prefix) {
			f.add(seen, "its name ends with a space, so it is not read", "leave out the space before the =")
			continue
		}
		if strings.HasPrefix(key, Prefix) && vars[key] != "" && !isKnown(key) && !serviceLink.MatchString(key) {
			f.add(key, "there is no such setting", unknownHint(key))
		}
	}
}

func isKnown(key string) bool {
	return slices.ContainsFunc(settings, func(s setting) bool { return s.key == key })
}

func unknownHint(key string) string {
	if otherServiceLink.MatchString(key) {
		return "if Kubernetes sets it for a Service, set enableServiceLinks: false in the pod's spec"
	}
	if near, ok := nearest(key); ok {
		return "did you mean " + near + "?"
	}
	return "`tidemark config --docs` lists the settings there are"
}

// nearest returns the known variable that takes the fewest changes of a letter
// to get to from key, if it is likely to be meant.
func nearest(key string) (string, bool) {
	name := strings.TrimPrefix(key, Prefix)
	best, fewest := "", 1+(len(name)+2)/3
	for _, s := range settings {
		if d := levenshtein.Distance(name, strings.TrimPrefix(s.key, Prefix), nil); d < fewest {
			best, fewest = s.key, d
		}
	}
	return best, best != ""
}

// Variable returns the environment variable of a setting by the name that somebody gives it
// as a flag, like brokers or max-future.
func Variable(flag string) (key string, ok bool) {
	key = Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	ok = slices.ContainsFunc(settings, func(s setting) bool { return s.key == key })
	return key, ok
}
