package emit

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/watermark"
)

// Every family of windows has a header: its name ends in the family as it stands
// in the configuration, and its value is every window that the record is in, the
// oldest first, as start and end in ms:
//
//	tidemark-window-tumbling:1m    1700000040000,1700000100000
//	tidemark-window-hopping:2m/1m  1699999980000,1700000100000 1700000040000,1700000160000
//
// So a value says by itself how it came about, and whoever checks it needs no
// configuration to recompute it.
const wordWindow = "window-" // and the family

// AppendWindows appends windows as they stand in a header.
func AppendWindows(b []byte, ws []window.Window) []byte {
	for i, w := range ws {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, w.Start, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, w.End, 10)
	}
	return b
}

// longestWindow is what a window takes of a header: two times of event times,
// or of what is a century off them.
const longestWindow = 2*len("-12345678901234") + len(", ")

// Room returns the most bytes that windows take of a record.
func (h Headers) Room() int {
	n := h.Windows.Most() * longestWindow
	for _, f := range h.Windows {
		n += len(h.Prefix) + len(wordWindow) + len(f.String()) + HeaderFraming
	}
	return n
}

// tag makes the header of a family. Records come out in order of event time, so
// the header of one is nearly always that of the one before.
type tag struct {
	family  *window.Family
	header  kgo.RecordHeader
	written bool
	stretch window.Window // of event times that are in the windows of the header
	windows []window.Window
}

func newTags(h Headers) []tag {
	tags := make([]tag, len(h.Windows))
	for i, f := range h.Windows {
		tags[i] = tag{family: f, header: kgo.RecordHeader{Key: h.Prefix + wordWindow + f.String()}}
	}
	return tags
}

// windows appends the headers with the windows that an event time is in.
func (o *Outbox) windows(hs []kgo.RecordHeader, t watermark.Time) []kgo.RecordHeader {
	ms := t.Millis()
	for i := range o.tags {
		tag := &o.tags[i]
		if !tag.written || ms < tag.stretch.Start || ms >= tag.stretch.End {
			o.write(tag, t)
		}
		hs = append(hs, tag.header)
	}
	return hs
}

func (o *Outbox) write(tag *tag, t watermark.Time) {
	tag.windows, tag.stretch = tag.family.Append(tag.windows[:0], t)
	room := o.bytes.take(len(tag.windows) * longestWindow)
	b := AppendWindows(room[:0], tag.windows)
	o.bytes.giveBack(len(room) - len(b))
	tag.header.Value, tag.written = b[:len(b):len(b)], true
}

// isWindow reports whether a header is one of those of windows.
func (o *Outbox) isWindow(h kgo.RecordHeader) bool {
	return len(o.tags) > 0 && strings.HasPrefix(h.Key, o.names.window)
}
