package pipeline

import "hash/fnv"

// HashKey returns what hashKey does.
func HashKey(key []byte) uint64 {
	l := Pipeline{keys: fnv.New64a()}
	return l.hashKey(key)
}

// hashKey returns the hash by which the engine knows the records of a key. It has to be the
// same in every process: see docs/design/previous.md. Records without a key have one key.
func (l *Pipeline) hashKey(key []byte) uint64 {
	if key == nil {
		return 0
	}
	l.keys.Reset()
	_, _ = l.keys.Write(key) // it never fails
	return l.keys.Sum64()
}
