package position

// offsets is a set of offsets. It takes a bit for each, in the neighbourhood of those that
// it has: a run of a billion takes 125 MB.
type offsets map[int64]*[chunkWords]uint64

const (
	chunkBits  = 1 << 16
	chunkWords = chunkBits / 64
)

// add adds an offset, which is not negative, and reports whether it was not there.
func (s offsets) add(offset int64) (added bool) {
	chunk := s[offset/chunkBits]
	if chunk == nil {
		chunk = new([chunkWords]uint64)
		s[offset/chunkBits] = chunk
	}
	at := offset % chunkBits
	word, bit := &chunk[at/64], uint64(1)<<(at%64)
	added = *word&bit == 0
	*word |= bit
	return added
}

func (s offsets) has(offset int64) bool {
	chunk := s[offset/chunkBits]
	at := offset % chunkBits
	return chunk != nil && chunk[at/64]&(1<<(at%64)) != 0
}
