package group

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ListPartitions writes partitions as people do: orders/0,1,2.
func ListPartitions(partitions map[string][]int32) string {
	var b strings.Builder
	for _, topic := range slices.Sorted(maps.Keys(partitions)) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(topic)
		for i, n := range slices.Sorted(slices.Values(partitions[topic])) {
			b.WriteByte("/,"[min(i, 1)])
			b.WriteString(strconv.Itoa(int(n)))
		}
	}
	return b.String()
}
