// Consumer prints the records of a topic, as PARTITION KEY VALUE:
//
//	go run ./docs/examples/consumer BROKERS GROUP TOPIC
//	go run ./docs/examples/consumer localhost:9092 billing payments
//	go run ./docs/examples/consumer localhost:9092 billing payments.ordered
//
// It knows nothing of Tidemark: of the last two the second prints in order of event
// time. consumer.py and Consumer.java do the same.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consume prints until ctx ends, and commits what it has printed.
func consume(ctx context.Context, out io.Writer, brokers, group, topic string) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		return err
	}
	defer cl.Close()
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { fmt.Fprintf(out, "%d %s %s\n", r.Partition, r.Key, r.Value) })
		if err := errors.Join(fetches.Err(), cl.CommitUncommittedOffsets(context.WithoutCancel(ctx))); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: consumer BROKERS GROUP TOPIC")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := consume(ctx, os.Stdout, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}
