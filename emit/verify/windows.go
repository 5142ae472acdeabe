package verify

import (
	"fmt"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/watermark"
)

// windowCheck recomputes the windows that headers name, by these names alone: families
// may have changed in the course of time. A window that is missing is no fault: its
// header may have been left out for want of room, or not been asked for then.
type windowCheck struct {
	windows []window.Window // room to compute in
	text    []byte
}

// wrongWindows says what is wrong with the windows that c.out says it is in.
func (c *Checker) wrongWindows(t watermark.Time) string {
	w, reader := &c.windows, c.reader(c.out.late)
	for _, h := range c.out.Windows {
		w.windows, _ = reader.Family(h.Key).Append(w.windows[:0], t)
		w.text = emit.AppendWindows(w.text[:0], w.windows)
		if string(w.text) != string(h.Value) {
			return fmt.Sprintf("%s is not what it is at %d ms, %q", h.Key, t.Millis(), w.text)
		}
	}
	return ""
}
