package reorder

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/tidemarkhq/tidemark/watermark"
)

// The metadata of an offset commit is a snapshot as text, so that any Kafka
// tool shows it:
//
//	v1;id=…;o=0;p=4;h=81234;he=0;w=1763700000000000000;m=5000000001;b=311,9f0c12aa;f=5ad1c0de;c=7b09e1c4
//
//	id  topic id                     e  epoch, when not 0
//	o   origin                       l  late run, when not 0
//	p   partitions at the start      r  frontier of a release under way:
//	h   next offset to read             event time, offset - L; last - L of
//	he  leader epoch at h - 1           the duplicates it begins with, if any
//	w   watermark (ns), - for none   g  steps of the future guard:
//	n   w - natural, when not 0         offset - L, limit, ...
//	m   max - w                      b  records buffered, sum of their hashes
//	d   disorder seen, base64        f  fingerprint of what makes event times
//	fo  first offset that it is of, when that is known to be another than the first
//	fe  first epoch that it is of, when not 0
//	s   spans settled on an outside service's word:
//	    distance from the one before, or L, length, ...
//	x   from where on records without a time are owed at the watermark's edge,
//	    offset - L, if any is
//	c   CRC-32C of all before it and of group, partition and L
//
// L itself is the committed offset. Since the checksum covers it and where it
// was committed, a commit that was shifted or copied is foreign.
//
// With fo, fe or x it is v2: a version of Tidemark that does not know them must not take the
// text for one that is damaged.

// Scope is where a commit belongs.
type Scope struct {
	Group       string
	TopicID     [16]byte
	Partition   int32
	Fingerprint [4]byte // of the sources, formats and parser of event times
}

// MaxMetadata is the default of a broker's offset.metadata.max.bytes. Encode
// stays below it, if only by a hundred bytes at the worst: the guard's steps, what
// Disorder holds and the spans are bounded.
const MaxMetadata = 4096

var (
	// ErrForeign: the text was not written for this group, partition and
	// offset, or has been damaged.
	ErrForeign = errors.New("written for another group, partition or offset, or damaged")
	// ErrNewer: a later version of Tidemark wrote it.
	ErrNewer = errors.New("written by a newer version of Tidemark")
	// ErrRecreated: the topic of this name is not the one it was written for. Brokers
	// before 2.8 have no topic ids, and show zero: where either id is zero, nothing
	// says so.
	ErrRecreated = errors.New("written for an earlier topic of the same name")
	// ErrFingerprint: event times are now made in another way, and records
	// are buffered whose times decided what is still owed.
	ErrFingerprint = errors.New("written with other event-time sources, for records that are still held")
)

// Encode returns the metadata to commit with offset Low.
func (s *Snapshot) Encode(at Scope) string {
	b := make([]byte, 0, 256)
	b = append(append(b, s.version()...), ";id="...)
	b = base64.RawURLEncoding.AppendEncode(b, at.TopicID[:])
	b = field(b, "o", s.Origin)
	b = field(b, "p", int64(s.Known))
	b = field(b, "h", s.Next)
	b = field(b, "he", int64(s.NextEpoch))
	if s.W == watermark.None {
		b = append(b, ";w=-"...)
	} else {
		b = field(b, "w", int64(s.W))
	}
	if d := s.W - s.Natural; d != 0 {
		b = field(b, "n", int64(d))
	}
	b = field(b, "m", int64(s.Max-s.W))
	if s.Epoch != 0 {
		b = field(b, "e", int64(s.Epoch))
	}
	if s.LateRun != 0 {
		b = field(b, "l", int64(s.LateRun))
	}
	if s.Releasing {
		b = append(field(b, "r", int64(s.Frontier.Time)), ',')
		b = strconv.AppendInt(b, s.Frontier.Offset-s.Low, 10)
		if s.Repeats != 0 {
			b = strconv.AppendInt(append(b, ','), s.Repeats-s.Low, 10)
		}
	}
	for i, g := range s.Steps {
		if i == 0 {
			b = append(b, ";g="...)
		} else {
			b = append(b, ',')
		}
		b = append(strconv.AppendInt(b, g.Offset-s.Low, 10), ',')
		b = strconv.AppendInt(b, int64(g.Limit), 10)
	}
	if len(s.Disorder) > 0 {
		b = base64.RawURLEncoding.AppendEncode(append(b, ";d="...), s.Disorder)
	}
	end := s.Low
	for i, g := range s.Settled {
		if i == 0 {
			b = append(b, ";s="...)
		} else {
			b = append(b, ',')
		}
		b = append(strconv.AppendInt(b, g.From-end, 10), ',')
		b = strconv.AppendInt(b, g.To-g.From, 10)
		end = g.To
	}
	if s.Edge != 0 {
		b = field(b, "x", s.Edge-s.Low)
	}
	b = append(field(b, "b", int64(s.Count)), ',')
	b = fmt.Appendf(b, "%08x;f=%x", s.Sum, at.Fingerprint)
	if s.TimesFrom != 0 {
		b = field(b, "fo", s.TimesFrom)
	}
	if s.TimesEpoch != 0 {
		b = field(b, "fe", int64(s.TimesEpoch))
	}
	return string(fmt.Appendf(b, ";c=%08x", checksum(b, s.Low, at)))
}

// latestVersion is the latest of the metadata that is known.
const latestVersion = 2

func (s *Snapshot) version() string {
	if s.Edge != 0 || s.TimesFrom != 0 || s.TimesEpoch != 0 {
		return "v2"
	}
	return "v1"
}

func field(b []byte, key string, v int64) []byte {
	b = append(append(append(b, ';'), key...), '=')
	return strconv.AppendInt(b, v, 10)
}

func checksum(text []byte, low int64, at Scope) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, text)
	return crc32.Update(sum, table, fmt.Appendf(nil, ";%d;%d;%s", low, at.Partition, at.Group))
}

// Decode reads the metadata of a commit at offset low with the given leader
// epoch. The error is one of those above; nothing of a snapshot that comes
// with an error may be used, except that the one of ErrRecreated and of
// ErrFingerprint is whole and can be reported. One that was written with another
// fingerprint, with nothing buffered, has its TimesFrom at Next and its TimesEpoch at Epoch.
func Decode(text string, low int64, lowEpoch int32, at Scope) (Snapshot, error) {
	s := Snapshot{Low: low, LowEpoch: lowEpoch}
	version, rest, _ := strings.Cut(text, ";")
	if n, err := strconv.Atoi(strings.TrimPrefix(version, "v")); strings.HasPrefix(version, "v") && err == nil && n > latestVersion {
		return s, ErrNewer
	}
	written := at // what the text says of where it belongs
	fields := map[string]string{}
	for f := range strings.SplitSeq(rest, ";") {
		k, v, _ := strings.Cut(f, "=")
		fields[k] = v
	}
	if err := s.read(fields, &written); err != nil {
		return s, ErrForeign
	}
	// Reading is lenient because this is not: only the very text that
	// Encode writes for this place passes, checksum included.
	if s.Encode(written) != text || s.Next < s.Low || s.Low < 0 {
		return s, ErrForeign
	}
	switch {
	case written.TopicID != at.TopicID && written.TopicID != noTopicID && at.TopicID != noTopicID:
		return s, ErrRecreated
	case written.Fingerprint != at.Fingerprint && s.Low < s.Next:
		return s, ErrFingerprint
	case written.Fingerprint != at.Fingerprint:
		s.TimesChange()
	}
	return s, nil
}

// TimesChange says that event times are made as now from what is read next.
func (s *Snapshot) TimesChange() {
	s.TimesFrom, s.TimesEpoch = 0, s.Epoch
	if s.Next > s.Origin { // else this epoch has none of before
		s.TimesFrom = s.Next
	}
}

// TimesKnown returns the snapshot that Decode returned with err, for FreshAfter: nil where
// it does not say from where on event times are made as now.
func TimesKnown(text string, s *Snapshot, err error, at Scope) *Snapshot {
	recreated := errors.Is(err, ErrRecreated) // whose offsets are of other records
	if err == nil || recreated && Fingerprint(text) == at.Fingerprint && s.TimesFrom == 0 {
		return s
	}
	return nil
}

// Fingerprint returns the fingerprint that metadata was written with. Decode has to have
// taken the metadata.
func Fingerprint(metadata string) (f [4]byte) {
	_, text, _ := strings.Cut(metadata, ";f=")
	text, _, _ = strings.Cut(text, ";")
	b, _ := hex.DecodeString(text)
	copy(f[:], b)
	return f
}

// noTopicID is that of every topic where brokers have none.
var noTopicID [16]byte

// TopicID returns the topic id that metadata was written with, zero where brokers had
// none. Decode has to have taken the metadata.
func TopicID(metadata string) (id [16]byte) {
	_, text, _ := strings.Cut(metadata, ";id=")
	text, _, _ = strings.Cut(text, ";")
	b, _ := base64.RawURLEncoding.DecodeString(text)
	copy(id[:], b)
	return id
}

func (s *Snapshot) read(fields map[string]string, at *Scope) error {
	var p parser
	id, err := base64.RawURLEncoding.DecodeString(fields["id"])
	p.note(err)
	p.note(length(copy(at.TopicID[:], id), len(at.TopicID)))
	s.Origin = p.int(fields["o"], 64)
	s.Known = int32(p.int(fields["p"], 32))
	s.Next = p.int(fields["h"], 64)
	s.NextEpoch = int32(p.int(fields["he"], 32))
	s.W = watermark.None
	if w := fields["w"]; w != "-" {
		s.W = watermark.Time(p.int(w, 64))
	}
	s.Natural = s.W - watermark.Time(p.optional(fields["n"]))
	s.Max = s.W + watermark.Time(p.int(fields["m"], 64))
	s.Epoch = uint32(p.optional(fields["e"]))
	s.LateRun = int(p.optional(fields["l"]))
	if r, ok := fields["r"]; ok {
		t, offset, _ := strings.Cut(r, ",")
		offset, last, repeats := strings.Cut(offset, ",")
		s.Releasing = true
		s.Frontier = Position{watermark.Time(p.int(t, 64)), s.Low + p.int(offset, 64)}
		if repeats {
			s.Repeats = s.Low + p.int(last, 64)
		}
	}
	if g, ok := fields["g"]; ok {
		numbers := strings.Split(g, ",")
		for i := 0; i+1 < len(numbers); i += 2 {
			s.Steps = append(s.Steps, watermark.Step{
				Offset: s.Low + p.int(numbers[i], 64),
				Limit:  watermark.Time(p.int(numbers[i+1], 64)),
			})
		}
	}
	if d := fields["d"]; d != "" {
		s.Disorder, err = base64.RawURLEncoding.DecodeString(d)
		p.note(err)
		_, err = watermark.ReadDisorder(s.Disorder, 1)
		p.note(err)
	}
	if list, ok := fields["s"]; ok {
		s.Settled = p.spans(list, s.Low, s.Next)
	}
	if x, ok := fields["x"]; ok {
		s.Edge = s.Low + p.int(x, 64)
	}
	count, sum, _ := strings.Cut(fields["b"], ",")
	s.Count = uint32(p.int(count, 64))
	s.Sum = uint32(p.hex(sum))
	s.TimesFrom = p.optional(fields["fo"])
	s.TimesEpoch = uint32(p.optional(fields["fe"]))
	fingerprint, err := hex.DecodeString(fields["f"])
	p.note(err)
	p.note(length(copy(at.Fingerprint[:], fingerprint), len(at.Fingerprint)))
	return p.err
}

// parser keeps the first error.
type parser struct{ err error }

func (p *parser) note(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *parser) int(s string, bitSize int) int64 {
	v, err := strconv.ParseInt(s, 10, bitSize)
	p.note(err)
	return v
}

// spans reads those of [low, next): no more than there may be, none empty, and none
// that touches another or low.
func (p *parser) spans(list string, low, next int64) (all []Span) {
	numbers := strings.Split(list, ",")
	for end := low; len(numbers) >= 2; numbers = numbers[2:] {
		gap, length := p.int(numbers[0], 64), p.int(numbers[1], 64)
		if gap < 1 || gap > next-end || length < 1 || length > next-end-gap || end+gap+length-low > settledReach || len(all) == MaxSettled {
			p.note(ErrForeign)
			return nil
		}
		from := end + gap
		end = from + length
		all = append(all, Span{from, end})
	}
	return all
}

func (p *parser) optional(s string) int64 {
	if s == "" {
		return 0
	}
	return p.int(s, 64)
}

func (p *parser) hex(s string) uint64 {
	v, err := strconv.ParseUint(s, 16, 32)
	p.note(err)
	return v
}

func length(got, want int) error {
	if got != want {
		return ErrForeign
	}
	return nil
}
