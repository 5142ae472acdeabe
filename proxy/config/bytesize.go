package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// ByteSize is a number of bytes.
type ByteSize int64

const (
	kib ByteSize = 1 << 10
	mib ByteSize = 1 << 20
	gib ByteSize = 1 << 30
)

// UnmarshalText reads a number with a unit, like 256MiB (2^20 bytes each) or
// 256MB (10^6 bytes each), or without one, which is bytes.
func (b *ByteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	// A comma would be dropped: "1,5GiB" is not fifteen.
	if err != nil || n > math.MaxInt64 || strings.Contains(string(text), ",") {
		return problem{fmt.Sprintf("%q is not a number of bytes", text), "like 256MiB or 1GiB"}
	}
	*b = ByteSize(n)
	return nil
}

// String returns the exact number in the largest binary unit that divides it,
// as UnmarshalText reads it.
func (b ByteSize) String() string {
	for _, unit := range []struct {
		size ByteSize
		name string
	}{{gib, "GiB"}, {mib, "MiB"}, {kib, "KiB"}} {
		if b != 0 && b%unit.size == 0 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}
