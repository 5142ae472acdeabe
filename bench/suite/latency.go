package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemarkhq/tidemark/bench/check"
	"github.com/tidemarkhq/tidemark/bench/measure"
	"github.com/tidemarkhq/tidemark/bench/workload"
)

// Pacing is a load of so many records a second.
type Pacing struct {
	Rate     int           // records a second
	Warm     time.Duration // not measured: beyond the bound, for virtual machines to compile
	Measured time.Duration
}

// Latency puts each candidate under a paced load, rounds times, in turns.
func (s *Suite) Latency(ctx context.Context, name string, candidates []Candidate, load Pacing, rounds int) error {
	if err := s.Build(ctx, candidates); err != nil {
		return err
	}
	c, err := workload.Find("main")
	if err != nil {
		return err
	}
	r := s.results(name)
	for round := range rounds {
		for _, candidate := range candidates {
			var best *Latency
			err := s.quietly(func() (float64, error) {
				l, err := s.latency(ctx, c, candidate, load, uint64(round+1))
				if err != nil {
					return 0, err
				}
				l.Round = round + 1
				s.logf("%s", l.line())
				if best == nil || !l.Holds() || l.Foreign < best.Foreign {
					best = &l
				}
				return l.Foreign, nil
			})
			if err != nil {
				return err
			}
			r.Latencies = append(r.Latencies, *best)
			if err := s.save(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l Latency) line() string {
	at := fmt.Sprintf("latency %-16s round %d", l.Candidate, l.Round)
	if l.Failed != "" {
		return at + ": FAILED: " + l.Failed
	}
	text := at + ":"
	for i, p := range Percentiles {
		if slices.Contains([]float64{50, 90, 99, 99.9, 100}, p) {
			text += fmt.Sprintf(" P%s %.1f", strconv.FormatFloat(p, 'f', -1, 64), l.Ms[i])
		}
	}
	return fmt.Sprintf("%s ms, %d records, %.2f cores, peak %d MiB, others %.0f %%, %s",
		text, l.Count, l.Cores, l.Usage.Peak>>20, 100*l.Foreign, l.Check.String())
}

// arrival is a record that a consumer has received.
type arrival struct {
	partition int32
	ms        int64 // event time
	at        time.Time
}

// latency is one run. What goes wrong in it is in the Latency, and the next may
// go well; the error is that of ctx.
func (s *Suite) latency(ctx context.Context, c workload.Case, candidate Candidate, load Pacing, seed uint64) (Latency, error) {
	l := Latency{Candidate: candidate.Name, Broker: s.Cluster.Kind, Interval: candidate.Interval, Rate: load.Rate}
	s.runs++
	topic := fmt.Sprintf("paced-%d", s.runs)
	err := s.Cluster.CreateTopics(ctx, topic, c.Partitions)
	if err == nil {
		err = s.pacedOn(ctx, topic, c, candidate, load, seed, &l)
	}
	if gone := s.Cluster.DeleteTopics(ctx, topic, "group-"+topic); err == nil {
		err = gone
	}
	if err != nil {
		l.Failed = err.Error()
	}
	return l, ctx.Err()
}

func (s *Suite) pacedOn(ctx context.Context, topic string, c workload.Case, candidate Candidate, load Pacing, seed uint64, l *Latency) error {
	ch, err := s.start(ctx, candidate, topic, c.Partitions)
	if err != nil {
		return err
	}
	steps, arrivals, begun, err := s.pace(ctx, ch, c, load, seed, l)
	if err != nil {
		err = ch.explain(err)
	}
	ch.stop()
	if err != nil {
		return err
	}
	l.Usage = ch.Between(begun, begun.Add(load.Measured))
	l.Cores = l.Usage.CPU / load.Measured.Seconds()
	l.Usage.Samples = nil // there is nothing to see
	if err := l.count(steps, arrivals, begun); err != nil {
		return err
	}
	found, err := check.Outputs(ctx, s.Cluster.Addr, topic, c.Partitions, candidate.Rules)
	if err != nil {
		return err
	}
	l.Check = *found
	return nil
}

// pace writes and reads until the time is up.
func (s *Suite) pace(ctx context.Context, ch *child, c workload.Case, load Pacing, seed uint64, l *Latency) (
	steps [][]workload.Step, arrivals []arrival, begun time.Time, err error,
) {
	working, cancel := ch.within(ctx, time.Hour)
	defer cancel()
	reading, stop := context.WithCancel(working)
	defer stop()
	var reader sync.WaitGroup
	var readErr error
	reader.Go(func() { arrivals, readErr = receive(reading, s.Cluster.Addr, ch.topic+".ordered") })

	begun = time.Now().Add(workload.Bound + load.Warm)
	loads := make(chan measure.Load, 1)
	time.AfterFunc(time.Until(begun), func() {
		load, _ := measure.Loads(ch.PID(), s.Cluster.PID)
		loads <- load
	})
	paced, err := workload.Pace(working, s.Cluster.Addr, ch.topic, c, seed, load.Rate, workload.Bound+load.Warm+load.Measured)
	if err == nil {
		err = pause(working, 2*time.Second+2*ch.candidate.Interval) // for all that can be released to arrive
	}
	after, loadErr := measure.Loads(ch.PID(), s.Cluster.PID)
	if err == nil {
		l.Foreign = after.Foreign(<-loads)
	}
	l.Noisy = l.Foreign > noisy
	stop()
	reader.Wait()
	if err = errors.Join(err, readErr, loadErr); err != nil {
		return nil, nil, begun, err
	}
	return paced.Steps, arrivals, begun, nil
}

// receive notes when records come, as a consumer of committed records sees
// them, until ctx is done.
func receive(ctx context.Context, broker, topic string) ([]arrival, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var all []arrival
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return all, nil
		}
		now := time.Now()
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			all = append(all, arrival{r.Partition, r.Timestamp.UnixMilli(), now})
		})
	}
}

// count makes the percentiles. A record could be released when one was visible
// in its partition whose event time is more than the bound above its own; that
// is no sooner than when the producer was handed that one.
func (l *Latency) count(steps [][]workload.Step, arrivals []arrival, begun time.Time) error {
	h := hdrhistogram.New(1, time.Minute.Microseconds(), 3)
	for _, a := range arrivals {
		rose := steps[a.partition]
		i, _ := slices.BinarySearchFunc(rose, a.ms+workload.Bound.Milliseconds()+1, func(s workload.Step, ms int64) int {
			return int(s.Max - ms)
		})
		if i == len(rose) {
			return fmt.Errorf("a record of event time %d came out before any could have let it", a.ms)
		}
		if rose[i].Sent.Before(begun) {
			continue
		}
		if err := h.RecordValue(max(1, a.at.Sub(rose[i].Sent).Microseconds())); err != nil {
			return err
		}
	}
	if l.Count = h.TotalCount(); l.Count == 0 {
		return errors.New("nothing came out")
	}
	for _, p := range Percentiles {
		l.Ms = append(l.Ms, float64(h.ValueAtQuantile(p))/1000)
	}
	return nil
}
