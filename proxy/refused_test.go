package proxy

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// A password is renewed at the brokers first, and connections break: until it is here
// too, the log says so and the login is tried now and then, as often as an account can
// bear, not as often as the client would.
func TestLoginRefusedUnderway(t *testing.T) {
	onFake(t, func(t *testing.T, c *cluster) {
		var refuse atomic.Bool
		var refusals atomic.Int64
		c.fake.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.fake.KeepControl()
			resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			if refuse.Load() {
				refusals.Add(1)
				resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
			}
			return resp, nil, true
		})
		c.connection = append(c.connection, kgo.SASL(plain.Auth{User: "u", Pass: "p"}.AsMechanism()))
		topic := c.topic(1)
		s := c.start(topic)
		c.await("the partition taken up", func() bool { return len(c.owned(s)) == 1 })
		refuse.Store(true)
		s.link.leave()
		s.link.comeBack()
		time.Sleep(5 * time.Minute)
		s.lives()
		if n := refusals.Load(); n < 10 || n > 150 {
			t.Errorf("%d logins in 5 minutes", n)
		}
		if n := len(s.voice.heard("the brokers refuse connections or logins that worked before")); n < 5 || n > 15 {
			t.Errorf("told %d times", n)
		}
		refuse.Store(false)
		for i := range 3 {
			c.produce(c.cl, record(topic, 0, time.Now().UnixMilli(), fmt.Sprint(i)))
		}
		c.awaitDrained(s)
		s.stop()
		if r := c.verify(s.cfg); r.Ordered != 3 {
			t.Errorf("%d ordered", r.Ordered)
		}
	})
}
