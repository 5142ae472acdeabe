package watermark

// Strategy says how the records of a partition move its watermark.
type Strategy uint8

const (
	// Bounded: W stays a fixed bound behind the newest event time.
	//
	//	W = newest - bound - 1 ns
	Bounded Strategy = iota
	// WindowMin: W stays behind the oldest of the records held that are not
	// older than a window before the newest one.
	//
	//	W = min { t held | t >= newest - window } - lateness - 1 ns
	WindowMin
	// Punctuated: a record carries it. The record is judged first.
	//
	//	W = marker
	Punctuated
	// Adaptive: as Bounded, with a bound that is learned; see Disorder.
	Adaptive
)
