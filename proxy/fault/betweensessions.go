package fault

import (
	"time"
)

// BetweenSessions is the pause between sessions, as long as none of them
// commits anything. It stays short: once a broker is back, the output is to go
// on within 3 s.
var BetweenSessions = Backoff{First: 250 * time.Millisecond, Longest: time.Second}
