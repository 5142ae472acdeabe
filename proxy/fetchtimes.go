package proxy

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/clocks"
)

// fetchTimes watches how long fetches take. Where nothing is to be had, brokers
// answer only after half a second; that is part of it.
type fetchTimes struct{ trips *clocks.Trips }

// OnBrokerE2E is told of every request and its answer.
func (f fetchTimes) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	if key == kmsg.Fetch.Int16() && e.Err() == nil {
		f.trips.Add(e.DurationE2E())
	}
}
