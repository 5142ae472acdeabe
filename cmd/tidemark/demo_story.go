package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	storyTopic      = "payments"
	storyPartitions = 3
	storyBound      = 2 * time.Second // no more than this is forgiven
	storyIdle       = time.Second
	storyLength     = 6 * time.Second
	openingCents    = 2000 // on each card before the story begins
	eventTimeHeader = "event-time"
)

// payment is the value of a record of the story.
type payment struct {
	Card  string `json:"card"`
	Kind  string `json:"kind"`
	Cents int    `json:"cents"`
}

const (
	kindTopUp    = "top-up"
	kindPurchase = "purchase"
)

// storyEvent is a payment, when it happened and when it arrives, both since
// the start of the story, and what its device takes the time to be.
type storyEvent struct {
	payment
	happened, arrives time.Duration
	clock             deviceClock
}

type deviceClock int

const (
	clockRight deviceClock = iota
	clockAhead             // by a day
	clockBroken
)

// record returns the event as the producer sends it.
func (e *storyEvent) record(start time.Time) *kgo.Record {
	value, err := json.Marshal(e.payment)
	if err != nil {
		panic(err) // strings and a number
	}
	at := strconv.FormatInt(start.Add(e.happened).UnixMilli(), 10)
	switch e.clock {
	case clockAhead:
		at = strconv.FormatInt(start.Add(e.happened).AddDate(0, 0, 1).UnixMilli(), 10)
	case clockBroken:
		at = "not-a-time"
	}
	return &kgo.Record{
		Topic: storyTopic, Key: []byte(e.Card), Value: value,
		Headers: []kgo.RecordHeader{{Key: eventTimeHeader, Value: []byte(at)}},
	}
}

// tellStory returns the events in the order in which they arrive. The same
// seed tells the same story.
//
// Prepaid cards are topped up by phone and spent at tills, and both are
// offline now and then. When a purchase happened, the card always covered it:
// a consumer that declines one has got the order wrong. Only purchases come
// hopelessly late, so whoever never hears of them declines none for it.
func tellStory(seed uint64) []storyEvent {
	s := &story{rng: rand.New(rand.NewPCG(seed, 0))}
	const cards = 240
	for n := range cards {
		s.card(fmt.Sprintf("card-%03d", n+1))
	}
	s.misfortunes()
	s.amounts()
	slices.SortStableFunc(s.events, func(a, b storyEvent) int { return cmp.Compare(a.arrives, b.arrives) })
	return s.events
}

type story struct {
	rng    *rand.Rand
	events []storyEvent
}

func (s *story) between(a, b time.Duration) time.Duration {
	return a + time.Duration(s.rng.Int64N(int64(b-a)))
}

// card has somebody top a card up and go shopping, again and again.
func (s *story) card(card string) {
	at := s.between(0, time.Second)
	for at < storyLength {
		s.add(card, kindTopUp, at, s.phoneDelay())
		for range 1 + s.rng.IntN(4) {
			at += s.between(20*time.Millisecond, 250*time.Millisecond)
			s.add(card, kindPurchase, at, s.tillDelay())
		}
		at += s.between(50*time.Millisecond, 700*time.Millisecond)
	}
}

func (s *story) add(card, kind string, happened, delay time.Duration) {
	if happened < storyLength {
		s.events = append(s.events, storyEvent{
			payment: payment{Card: card, Kind: kind}, happened: happened, arrives: happened + delay,
		})
	}
}

func (s *story) tillDelay() time.Duration { return s.between(5*time.Millisecond, 120*time.Millisecond) }

// phoneDelay is up to a third of a second, and more where the phone has lost
// its connection.
func (s *story) phoneDelay() time.Duration {
	if s.rng.IntN(8) == 0 {
		return s.between(400*time.Millisecond, storyBound-200*time.Millisecond)
	}
	return s.between(10*time.Millisecond, 300*time.Millisecond)
}

// misfortunes befall some purchases: a train comes out of a long tunnel three
// times, three tills do not know the time, and one is a day ahead.
func (s *story) misfortunes() {
	const perTrain = 9
	trains := []time.Duration{1500 * time.Millisecond, 3 * time.Second, 4500 * time.Millisecond}
	victims := s.purchases(perTrain*len(trains) + 4)
	for i, arrives := range trains {
		for _, e := range victims[i*perTrain : (i+1)*perTrain] {
			e.arrives = arrives + s.between(0, 40*time.Millisecond)
			e.happened = e.arrives - s.between(25*time.Second, 35*time.Second)
		}
	}
	rest := victims[perTrain*len(trains):]
	for _, e := range rest[1:] {
		e.clock = clockBroken
	}
	rest[0].clock = clockAhead
}

// purchases draws n different purchases, of different cards.
func (s *story) purchases(n int) (drawn []*storyEvent) {
	taken := map[string]bool{}
	for len(drawn) < n {
		e := &s.events[s.rng.IntN(len(s.events))]
		if e.Kind == kindPurchase && !taken[e.Card] {
			taken[e.Card] = true
			drawn = append(drawn, e)
		}
	}
	return drawn
}

// amounts goes through what happened, in the order in which it happened, and
// lets nobody spend more than there is on the card.
func (s *story) amounts() {
	slices.SortStableFunc(s.events, func(a, b storyEvent) int { return cmp.Compare(a.happened, b.happened) })
	balances := map[string]int{}
	for i := range s.events {
		e := &s.events[i]
		balance, known := balances[e.Card]
		if !known {
			balance = openingCents
		}
		if e.Kind == kindTopUp {
			e.Cents = 500 * (2 + s.rng.IntN(9))
			balances[e.Card] = balance + e.Cents
			continue
		}
		e.Cents = balance * (20 + s.rng.IntN(70)) / 100
		balances[e.Card] = balance - e.Cents
	}
}
