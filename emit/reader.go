package emit

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/emit/window"
)

// The words of the headers of both outputs, in the order in which they are appended.
var (
	orderedWords = []string{WordWatermark, WordSourceOffset, WordEventTime, WordEpoch}
	lateWords    = []string{
		WordLateReason, WordLateTimestamp, WordUnknownSchema, WordSchema, WordLateByMs, WordWatermark, WordSourceTopic,
		WordSourcePartition, WordSourceOffset, WordLateAt, WordEpoch,
	}
)

// maxWords is the length of the longer of the two.
const maxWords = 11

// Reader takes records of one output apart again. It is not safe for concurrent use.
type Reader struct {
	words    []string
	names    []string // the same with their prefix
	families families
}

// NewReader returns a reader of ordered or of late records whose headers have a prefix.
func NewReader(prefix string, late bool) *Reader {
	words := orderedWords
	if late {
		words = lateWords
	}
	r := &Reader{words: words, families: families{prefix: prefix + wordWindow, known: map[string]*window.Family{}}}
	for _, w := range words {
		r.names = append(r.names, prefix+w)
	}
	return r
}

// Name returns the name of the header with a word, which is one of the output's.
func (r *Reader) Name(word string) string { return r.names[slices.Index(r.words, word)] }

// Names returns the names of all headers of the output, in the order in which they are
// appended. Those of windows are not among them.
func (r *Reader) Names() []string { return r.names }

// Family returns the family of windows that a header is named after, or nil.
func (r *Reader) Family(name string) *window.Family { return r.families.of(name) }

// Parts is a record of an output, taken apart into the source record and what was
// appended to it.
type Parts struct {
	Source       kgo.Record // as far as the output tells; topic, partition and offset are the output's
	SourceOffset int64      // -1: it does not say
	Epoch        int64
	Headers      []kgo.RecordHeader // all of the output's, which Source.Headers begins
	Windows      []kgo.RecordHeader // at the end of Headers

	words  []string
	has    [maxWords]bool
	values [maxWords][]byte
}

// Has reports whether the header with a word was appended.
func (p *Parts) Has(word string) bool {
	i := slices.Index(p.words, word)
	return i >= 0 && p.has[i]
}

// Value returns the value of the header with a word.
func (p *Parts) Value(word string) []byte {
	if i := slices.Index(p.words, word); i >= 0 {
		return p.values[i]
	}
	return nil
}

var errNotNumber = errors.New("not a number")

// Number returns the value of a header as a number, whether the header is there, and
// what is wrong with the number.
func (p *Parts) Number(word string) (v int64, has bool, err error) {
	if !p.Has(word) {
		return 0, false, nil
	}
	if v, err = strconv.ParseInt(string(p.Value(word)), 10, 64); err != nil {
		err = errNotNumber // without the value
	}
	return v, true, err
}

// Read takes a record apart, and reports whether the record names its source record.
// The parts share its memory.
func (r *Reader) Read(rec *kgo.Record, p *Parts) bool {
	p.words, p.SourceOffset, p.Headers, p.Source = r.words, -1, rec.Headers, *rec
	p.Source.Headers = rec.Headers[:r.strip(p)]
	p.Epoch, _, _ = p.Number(WordEpoch)
	if ms, has, err := p.Number(WordLateTimestamp); has && err == nil {
		p.Source.Timestamp = time.UnixMilli(ms)
	}
	v, has, err := p.Number(WordSourceOffset)
	if !has || err != nil || v < 0 {
		return false
	}
	p.SourceOffset = v
	return true
}

// strip returns how many headers are the source's own. From the end, it takes
// away those that we append, each name once and in our order. A source header
// that imitates ours stands before ours and so ends the search, unless ours
// of that name and all before it are switched off: see Keep.
func (r *Reader) strip(p *Parts) int {
	p.has, p.values = [maxWords]bool{}, [maxWords][]byte{}
	n, rank := r.families.before(p.Headers), len(r.names)
	p.Windows = p.Headers[n:]
	for n > 0 {
		k := slices.Index(r.names[:rank], p.Headers[n-1].Key)
		if k < 0 {
			break
		}
		n--
		rank = k
		p.has[k], p.values[k] = true, p.Headers[n].Value
	}
	return n
}

// Keep leaves the source record its first n headers, more than Read took for its own:
// they may carry our names. Offset and epoch stay as they were read.
func (r *Reader) Keep(p *Parts, n int) {
	p.Source.Headers = p.Headers[:n]
	p.Windows = p.Headers[max(n, len(p.Headers)-len(p.Windows)):]
	for i, name := range r.names {
		p.has[i] = slices.ContainsFunc(p.Headers[n:], func(h kgo.RecordHeader) bool { return h.Key == name })
	}
}

// families are the families of windows that headers name. They may have changed in the
// course of time, so it is the headers that are asked, and no configuration.
type families struct {
	prefix string
	known  map[string]*window.Family // by name of the header; nil: it is none of ours
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
