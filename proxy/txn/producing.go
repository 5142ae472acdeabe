package txn

const (
	// What is produced and not yet acknowledged, at the most; producing waits
	// there.
	MaxInFlight      = 16 << 10
	MaxInFlightBytes = 32 << 20
	// ProduceTries is how often the client sends a record again that brokers
	// refuse for now: for some 5 s, half of the shortest time that a
	// transaction lasts by default.
	ProduceTries = 30
)
