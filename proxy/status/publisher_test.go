package status

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Who looks does not wait for a loop that waits for something itself, however many look;
// and those who gave up are not in the way when it goes on.
func TestLookDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewPublisher("")
		answer := func() {
			b.Answer(func() *Status { return &Status{At: time.Now(), Partitions: make([]Partition, 1)} })
		}
		b.SetStage("joining")
		b.Open(func() {}) // it does not answer
		var looking sync.WaitGroup
		for range 10 * cap(b.asks) {
			looking.Go(func() {
				began := time.Now()
				if st := b.Status(t.Context()); st.Ready || st.NotReady != "joining" || time.Since(began) > loopPatience {
					t.Errorf("after %v: %+v", time.Since(began), st)
				}
			})
		}
		looking.Wait()
		answer()
		b.Open(answer)
		time.Sleep(PublishEvery)
		if st := b.Status(t.Context()); len(st.Partitions) != 1 || time.Since(st.made) > 0 {
			t.Errorf("it goes on, and what is shown is %v old: %+v", time.Since(st.made), st)
		}
	})
}
