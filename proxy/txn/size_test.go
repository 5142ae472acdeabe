package txn

import (
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The client asks for the limit from a goroutine of its own whenever it has
// fetched metadata; the loop learns meanwhile. Fatal: concurrent map read and
// map write (or -race).
func TestLimitsAreNotShared(t *testing.T) {
	w := fakeWriter(t)
	limit := ClientMaxBatch(w.Limits, w.MaxBatch, nil)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				limit("x")
			}
		}
	})
	for i := range 20_000 {
		_ = w.tooLarge(&failure{topic: fmt.Sprint(i % 1000), size: 10, err: kerr.MessageTooLarge})
	}
	close(stop)
	wg.Wait()
}
