package proxy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestAnotherCluster: the addresses come to lead to another cluster, which has the source
// and no offsets of the group, while records are held, or while a session begins anew.
// The process ends and names both, and has left nothing there. A process that begins
// there says where it does.
func TestAnotherCluster(t *testing.T) {
	for _, down := range []time.Duration{0, 5 * time.Second, time.Minute} {
		inBubble(t, func(t *testing.T) {
			var network kfake.VirtualNetwork
			open := func(id string) *kfake.Cluster {
				fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094), kfake.ListenFn(network.Listen), kfake.ClusterID(id),
					kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
				if err != nil {
					t.Fatal(err)
				}
				return fake
			}
			fake := open("north")
			c := &cluster{t: t, fake: fake, dial: network.DialContext, connection: []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DisableClientMetrics()}}
			c.open()
			defer c.close()
			topic := c.topic(2)
			c.produce(c.cl, record(topic, 0, time.Now().UnixMilli(), "held"))
			s := c.start(topic, noDrain)
			c.awaitRead(s)
			if st := s.status(); st.Cluster != "north" {
				t.Errorf("the status shows cluster %q", st.Cluster)
			}
			fake.Close()
			time.Sleep(down)
			south := open("south")
			defer south.Close()
			c.fake = south
			c.cl.Close()
			c.open()
			c.create(topic, 2)
			c.produce(c.cl, record(topic, 0, time.Now().UnixMilli(), "there"), record(topic, 1, time.Now().UnixMilli(), "there"))
			fault := s.fails()
			if fault.Code != 2 || !strings.Contains(fault.Error(), "south") || !strings.Contains(fault.Error(), "north") {
				t.Errorf("after %v, exit code %d: %v", down, fault.Code, fault)
			}
			listed, err := c.adm.ListTopics(c.ctx)
			if err != nil || listed.Has(topic+".ordered") {
				t.Errorf("the other cluster has topics %v, %v", listed.Names(), err)
			}
			if offsets, err := c.adm.FetchOffsets(kadm.RequireStable(c.ctx), s.cfg.Group); len(offsets) > 0 || err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
				t.Errorf("the other cluster has offsets %v, %v", offsets, err)
			}
			next := c.start(topic)
			c.awaitRead(next)
			next.stop()
			if said := next.voice.heard("cluster_id=south"); len(said) != 2 || !strings.Contains(said[1], topic+"/0@0,1@0") {
				t.Errorf("a first start says %q", said)
			}
		})
	}
}
