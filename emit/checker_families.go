package emit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/watermark"
)

// families are the families of windows that headers name. Those of the run that
// is checked may have changed in the course of time, so it is the headers that
// are asked, and no configuration. A window that is missing is no fault: its
// header may have been left out for want of room, or not been asked for then.
type families struct {
	prefix string
	known  map[string]*window.Family // by name of the header; nil: it is none of ours

	windows []window.Window // room to compute in
	text    []byte
}

func newFamilies(prefix string) *families {
	return &families{prefix: prefix + wordWindow, known: map[string]*window.Family{}}
}

// of returns the family of a header, or nil.
func (fs *families) of(name string) *window.Family {
	family, seen := fs.known[name]
	if text, ours := strings.CutPrefix(name, fs.prefix); ours && !seen {
		family, _ = window.ParseFamily(text)
		fs.known[name] = family
	}
	return family
}

// before returns how many headers stand before those of windows, which are the
// last of a record, each name once.
func (fs *families) before(headers []kgo.RecordHeader) int {
	n := len(headers)
	for n > 0 && fs.of(headers[n-1].Key) != nil {
		name := headers[n-1].Key
		if slices.ContainsFunc(headers[n:], func(h kgo.RecordHeader) bool { return h.Key == name }) {
			break
		}
		n--
	}
	return n
}

// wrong says what is wrong with the windows that a record says it is in.
func (fs *families) wrong(headers []kgo.RecordHeader, t watermark.Time) string {
	for _, h := range headers {
		fs.windows, _ = fs.of(h.Key).Append(fs.windows[:0], t)
		fs.text = AppendWindows(fs.text[:0], fs.windows)
		if string(fs.text) != string(h.Value) {
			return fmt.Sprintf("%s is %q, and at %d ms it is %q", h.Key, h.Value, t.Millis(), fs.text)
		}
	}
	return ""
}
