package browser

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/proxy"
	"github.com/tidemarkhq/tidemark/proxy/admin"
	"github.com/tidemarkhq/tidemark/proxy/config"
	"github.com/tidemarkhq/tidemark/proxy/status"
)

// served is a sidecar on a broker in the process, and its admin port.
type served struct {
	t       *testing.T
	address string
	silent  chan struct{} // when closed, nothing is answered any more
	cl      *kgo.Client
	kafka   *kfake.Cluster
}

const topic = "payments"

// sidecar starts one on a topic of so many partitions.
func sidecar(t *testing.T, partitions int, env ...string) *served {
	t.Helper()
	if chromium == nil {
		t.Skip("there is no chromium")
	}
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(partitions), topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	cfg, err := config.Load(append([]string{
		"TIDEMARK_BROKERS=" + kafka.ListenAddrs()[0], "TIDEMARK_TOPICS=" + topic, "TIDEMARK_GROUP=billing", "TIDEMARK_INSTANCE=billing-0",
		"TIDEMARK_MAX_OUT_OF_ORDERNESS=4s", "TIDEMARK_IDLE_TIMEOUT=3s", "TIDEMARK_MEMORY=256MiB",
	}, env...))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	publisher := status.NewPublisher("v1.2.3")
	go func() { ended <- proxy.RunOn(ctx, cfg, slog.New(slog.DiscardHandler), publisher) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s := &served{t: t, silent: make(chan struct{}), kafka: kafka}
	answers := admin.Handler(cfg, publisher)
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.silent:
			panic(http.ErrAbortHandler)
		default:
			answers.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(port.Close)
	s.address = port.URL + "/"
	s.cl, err = kgo.NewClient(kgo.SeedBrokers(kafka.ListenAddrs()[0]), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	for !publisher.Status(ctx).Ready {
		time.Sleep(10 * time.Millisecond)
	}
	return s
}

// payments writes so many records a second to each of the first partitions, out of order
// and now and then much too late, until the test ends or so long.
func (s *served) payments(partitions, perSecond int, long time.Duration) {
	ctx, stop := context.WithTimeout(s.t.Context(), long)
	random := rand.New(rand.NewPCG(7, 0))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		const pause = 50 * time.Millisecond
		for tick := time.Tick(pause); ; {
			select {
			case <-tick:
			case <-ctx.Done():
				return
			}
			for p := range partitions {
				for range max(perSecond/int(time.Second/pause), 1) {
					s.write(int32(p), time.Now().Add(-delay(random, p)))
				}
			}
		}
	}()
	s.t.Cleanup(func() { stop(); <-ended })
}

// delay is how long a payment was on its way: mostly little, and of some partitions
// more than of others.
func delay(random *rand.Rand, partition int) time.Duration {
	usual := time.Duration(1+partition%3) * 300 * time.Millisecond
	d := time.Duration(random.ExpFloat64() * float64(usual))
	if random.IntN(400) == 0 {
		d += 6 * time.Second
	}
	return d
}

func (s *served) write(partition int32, event time.Time) {
	ms := []byte(strconv.FormatInt(event.UnixMilli(), 10))
	s.cl.Produce(context.Background(), &kgo.Record{
		Topic: topic, Partition: partition, Value: make([]byte, 200), Headers: []kgo.RecordHeader{{Key: "event-time", Value: ms}},
	}, nil)
}
