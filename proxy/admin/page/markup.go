package page

import (
	"fmt"
	"html"
)

// markup is HTML that is written in this package. A string that came from elsewhere
// is not one, and the compiler sees to it that only its values are.
type markup string

// document is HTML in the making.
type document struct{ text []byte }

// add writes markup with values in the places of fmt's verbs. Whatever is not a number
// or markup itself is escaped, for text and for attributes in double quotes.
func (d *document) add(m markup, values ...any) {
	for i, v := range values {
		switch v.(type) {
		case int, int32, int64, uint64, uint32, float64, markup:
		default:
			values[i] = html.EscapeString(fmt.Sprint(v))
		}
	}
	d.text = fmt.Appendf(d.text, string(m), values...)
}

// either returns one of two pieces of markup.
func either(b bool, yes, no markup) markup {
	if b {
		return yes
	}
	return no
}
