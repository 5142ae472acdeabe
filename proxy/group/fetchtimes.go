package group

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
)

// FetchTimes is a hook of the client that watches how long fetches take. Where nothing is to be had, brokers
// answer only after half a second; that is part of it.
type FetchTimes struct{ Trips *clocks.Trips }

// OnBrokerE2E is told of every request and its answer.
func (f FetchTimes) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if key == kmsg.Fetch.Int16() && e.Err() == nil {
		f.Trips.Add(e.DurationE2E())
	}
}
