package config

import (
	"fmt"
	"strings"

	"github.com/tidemarkhq/tidemark/emit"
)

// Dedup says by what a repeat of a record is known. The zero value is off.
type Dedup struct{ emit.Identity }

const (
	dedupOff    = "off"
	dedupKey    = "key"
	dedupBytes  = "bytes"
	dedupHeader = "header:"
)

// UnmarshalText reads "off", "key", "bytes" or "header:NAME".
func (d *Dedup) UnmarshalText(text []byte) error {
	*d = Dedup{}
	switch word := string(text); {
	case strings.EqualFold(word, dedupOff):
	case strings.EqualFold(word, dedupKey):
		d.Kind = emit.KeyIdentity
	case strings.EqualFold(word, dedupBytes):
		d.Kind = emit.BytesIdentity
	case word == dedupHeader:
		return problem{"the name of the header is missing", "like header:event-id"}
	case strings.HasPrefix(word, dedupHeader):
		d.Kind, d.Header = emit.HeaderIdentity, strings.TrimPrefix(word, dedupHeader)
	default:
		return problem{fmt.Sprintf("%q is not known", text), "known: off, header:NAME, key, bytes"}
	}
	return nil
}

// String returns what UnmarshalText reads.
func (d Dedup) String() string {
	switch d.Kind {
	case emit.HeaderIdentity:
		return dedupHeader + d.Header
	case emit.KeyIdentity:
		return dedupKey
	case emit.BytesIdentity:
		return dedupBytes
	}
	return dedupOff
}

// On reports whether repeats are told from originals.
func (d Dedup) On() bool { return d.Kind != emit.NoIdentity }

// Duplicates says what becomes of repeats.
type Duplicates string

// What becomes of repeats.
const (
	DuplicatesAreLate Duplicates = "late"
	DropDuplicates    Duplicates = "drop"
)

// UnmarshalText accepts the known answers.
func (d *Duplicates) UnmarshalText(text []byte) error {
	return choose(d, text, DuplicatesAreLate, DropDuplicates)
}

func (c *Config) validateDedup(f *faults) {
	if c.DedupRemember < 0 {
		f.add(keyDedupRemember, show(c.DedupRemember)+" is negative", "0 remembers none")
	}
	if c.Duplicates == DropDuplicates && !c.Dedup.On() && f.read(keyDedup) {
		f.add(keyDuplicates, "has no effect without "+keyDedup, "say by what duplicates are known, like "+keyDedup+"=header:event-id")
	}
}
