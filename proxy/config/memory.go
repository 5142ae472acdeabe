package config

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Where the default of the byte budget comes from; tests put others in.
var (
	cgroupMemory = memlimit.FromCgroup
	systemMemory = memlimit.FromSystem
)

// withoutContainer is the most that is taken unasked of a machine that others
// use too; unknownMemory is what is taken when its size cannot be found out.
const (
	withoutContainer = 1 * gib
	unknownMemory    = 256 * mib
)

// defaultMemory returns the byte budget for buffered records when none is set,
// and in words how it came about. Half of the limit leaves room for what the
// client fetches, for what is being sent, and for Go's garbage.
func defaultMemory(cgroup, system memlimit.Provider) (ByteSize, string) {
	total := bytesFrom(system)
	// A limit beyond what the machine has limits nothing.
	if limit := bytesFrom(cgroup); limit > 0 && (total == 0 || limit <= total) {
		return wholeMiB(limit / 2), "default: half of the container's limit of " + wholeMiB(limit).String()
	}
	switch {
	case total == 0:
		return unknownMemory, "default: no container limit found, system memory unknown"
	case total/2 > withoutContainer:
		return withoutContainer, "default: no container limit found; half of the system's memory would be more"
	}
	return wholeMiB(total / 2), "default: no container limit found; half of the system's memory of " + wholeMiB(total).String()
}

// bytesFrom returns 0 when the provider knows no limit. Why it knows none is
// all one: no cgroup, no such system, no permission.
func bytesFrom(p memlimit.Provider) ByteSize {
	n, err := p()
	if err != nil {
		return 0
	}
	return ByteSize(min(n, math.MaxInt64))
}

func wholeMiB(b ByteSize) ByteSize {
	if b < mib {
		return b
	}
	return b / mib * mib
}
