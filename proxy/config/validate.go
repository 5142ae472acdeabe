package config

import (
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tidemarkhq/tidemark/watermark"
)

// Kafka's limits, by default where brokers can set them: beyond those, brokers refuse every
// request to join the group or to begin a transaction. The minimum of a second for a
// transaction is ours: a pause of the process would abort a shorter one.
const (
	longestTopic          = 249
	minSessionTimeout     = 6 * time.Second
	maxSessionTimeout     = 30 * time.Minute
	minTransactionTimeout = time.Second
	maxTransactionTimeout = 15 * time.Minute
)

// leastMemory is a budget that one large record already fills. Less is a
// number without its unit.
const leastMemory = 1 * mib

var (
	legalName         = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)
	legalHeaderPrefix = regexp.MustCompile(`^[a-zA-Z0-9._:/-]{1,100}$`)
)

// validate reports everything that is wrong with values that could be read.
func (c *Config) validate(f *faults) {
	c.validateBrokers(f)
	c.validateNames(f)
	c.validateTopics(f)
	c.validateTimes(f)
	c.validateDedup(f)
	if f.read(keyMemory) && c.Memory < leastMemory {
		hint := "write the unit, like 256MiB"
		if c.Memory >= leastMemory/2 { // it has one
			hint = "MB is 10^6 bytes, MiB is 2^20: write 1MiB, or more"
		}
		f.add(keyMemory, fmt.Sprintf("%s is less than %s", c.Memory, leastMemory), hint)
	}
	c.validateTLS(f)
	c.validateSASL(f)
	c.validateRegistry(f)
	c.validateAdmin(f)
	c.validateSecrets(f)
}

func (c *Config) validateSecrets(f *faults) {
	for _, s := range c.secrets() {
		if _, unset := c.origins[s.key]; !unset && s.file != "" && f.read(s.keyFile) {
			f.add(s.keyFile, "set together with "+s.key, "set one of them")
		}
	}
}

func (c *Config) validateBrokers(f *faults) {
	for _, b := range c.Brokers {
		if strings.Contains(b, "@") || strings.Contains(b, "://") {
			// Not quoted: what stands before an @ may be a password.
			f.add(keyBrokers, "a broker is written as a URL", "host:port alone; TLS and login have settings of their own")
		} else if !isHostPort(b) {
			f.add(keyBrokers, fmt.Sprintf("%q is not host:port", b), hintList(b, "like kafka-1:9092"))
		}
	}
}

// hintList says how to separate the entries of a list, if one looks like several.
func hintList(entry, otherwise string) string {
	if strings.ContainsAny(entry, " ;") {
		return "separate entries by commas"
	}
	return otherwise
}

// isHostPort accepts a host alone too, to which the client adds port 9092.
func isHostPort(b string) bool {
	if !strings.Contains(b, ":") {
		return !strings.ContainsFunc(b, unicode.IsSpace)
	}
	host, port, err := net.SplitHostPort(b)
	if err != nil || host == "" || strings.ContainsFunc(host, unicode.IsSpace) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func (c *Config) validateNames(f *faults) {
	if strings.ContainsFunc(c.Group, unicode.IsControl) {
		f.add(keyGroup, fmt.Sprintf("%q has control characters in it", c.Group), "")
	}
	if why := illegal(c.Instance); why != "" && f.read(keyInstance) {
		f.add(keyInstance, fmt.Sprintf("%q %s", c.Instance, why), "it becomes the static member id, and GROUP/INSTANCE the transactional id")
	}
	if c.Start.Kind == StartGroup && c.Start.Group == c.Group {
		f.add(keyStart, fmt.Sprintf("%q is the group that has no offset to start from", c.Group), "name another group, or earliest")
	}
	if !legalHeaderPrefix.MatchString(c.HeaderPrefix) {
		f.add(keyHeaderPrefix, fmt.Sprintf("%q is not 1 to 100 of the characters a-z A-Z 0-9 . _ - : /", c.HeaderPrefix), "")
	}
}

// illegal says why Kafka does not take name for a topic or a static member id,
// or returns nothing.
func illegal(name string) string {
	switch {
	case name == "." || name == "..":
		return "is not allowed as a name"
	case len(name) > longestTopic:
		return fmt.Sprintf("is longer than %d characters", longestTopic)
	case !legalName.MatchString(name):
		return "has characters other than a-z A-Z 0-9 . _ -"
	}
	return ""
}

func (c *Config) validateTimes(f *faults) {
	notNegative(f, keyMaxOutOfOrderness, c.MaxOutOfOrderness)
	notNegative(f, keyIdleTimeout, c.IdleTimeout)
	notNegative(f, keyMaxFuture, c.MaxFuture)
	notNegative(f, keyMaxDrift, c.MaxDrift)
	if f.read(keyMaxDrift, keyIdleTimeout) && c.MaxDrift > 0 && c.IdleTimeout == 0 {
		f.add(keyMaxDrift, fmt.Sprintf("%s, but %s=0: one silent partition would block all others for ever", show(c.MaxDrift), keyIdleTimeout),
			"set an idle timeout, or turn alignment off with 0")
	}
	if c.ReanchorAfter < 0 {
		f.add(keyReanchorAfter, fmt.Sprintf("%d is negative", c.ReanchorAfter), "0 turns it off")
	}
	within(f, keySessionTimeout, c.SessionTimeout, minSessionTimeout, maxSessionTimeout, "brokers refuse anything else")
	within(f, keyTransactionTimeout, c.TransactionTimeout, minTransactionTimeout, maxTransactionTimeout, "brokers refuse more than 15m")
	c.validateCommitInterval(f)
	c.validateWatermark(f)
}

// validateWatermark refuses settings that the chosen strategy ignores: whoever set one
// expects an effect.
func (c *Config) validateWatermark(f *faults) {
	notNegative(f, keyMinOutOfOrderness, c.MinOutOfOrderness)
	notNegative(f, keyWatermarkWindow, c.WatermarkWindow)
	notNegative(f, keyWatermarkLateness, c.WatermarkLateness)
	if !f.read(keyWatermark) {
		return
	}
	usual := defaults()
	for _, s := range []struct {
		key     string
		changed bool
		of      []Strategy
	}{
		{keyMaxOutOfOrderness, c.MaxOutOfOrderness != usual.MaxOutOfOrderness, []Strategy{Bounded, Adaptive}},
		{keyMinOutOfOrderness, c.MinOutOfOrderness != usual.MinOutOfOrderness, []Strategy{Adaptive}},
		{keyTargetLate, c.TargetLate != usual.TargetLate, []Strategy{Adaptive}},
		{keyWatermarkWindow, c.WatermarkWindow != usual.WatermarkWindow, []Strategy{WindowMin}},
		{keyWatermarkLateness, c.WatermarkLateness != usual.WatermarkLateness, []Strategy{WindowMin}},
		{keyWatermarkHeader, c.WatermarkHeader != usual.WatermarkHeader, []Strategy{Punctuated}},
	} {
		if s.changed && f.read(s.key) && !slices.Contains(s.of, c.Watermark) {
			f.add(s.key, fmt.Sprintf("has no effect with %s=%s", keyWatermark, c.Watermark), fmt.Sprintf("it is for %s", words(s.of)))
		}
	}
	if c.Watermark == Adaptive && f.read(keyMinOutOfOrderness, keyMaxOutOfOrderness) {
		if c.MinOutOfOrderness > c.MaxOutOfOrderness {
			f.add(keyMinOutOfOrderness, fmt.Sprintf("%s is more than %s=%s", show(c.MinOutOfOrderness), keyMaxOutOfOrderness, show(c.MaxOutOfOrderness)), "")
		}
		if c.MaxOutOfOrderness > watermark.MostBound {
			f.add(keyMaxOutOfOrderness, fmt.Sprintf("%s is more than the 49 days that can be learned", show(c.MaxOutOfOrderness)), "")
		}
	}
	if c.Watermark == Punctuated && c.ClockHeader != "" && f.read(keyMaxFuture) && c.MaxFuture == 0 {
		f.add(keyClockHeader, fmt.Sprintf("has no effect with %s=%s and %s=0: nothing says how far a clock may be off", keyWatermark, c.Watermark, keyMaxFuture), "set "+keyMaxFuture)
	}
	c.validateHold(f)
}

func words(of []Strategy) string {
	var all []string
	for _, s := range of {
		all = append(all, string(s))
	}
	return strings.Join(all, " and ")
}

// hold returns how long records are held, in event time, and the setting that says so. With
// markers there is no limit.
func (c *Config) hold() (d time.Duration, key string) {
	switch c.Watermark {
	case WindowMin:
		return c.WatermarkWindow + c.WatermarkLateness, keyWatermarkWindow + " + " + keyWatermarkLateness
	case Punctuated:
		return math.MaxInt64, keyWatermark
	}
	return c.MaxOutOfOrderness, keyMaxOutOfOrderness
}

// validateHold checks that the future guard has room for the time that records are held.
// With markers that time has no limit, and cannot be checked.
func (c *Config) validateHold(f *faults) {
	hold, key := c.hold()
	if f.read(keyMaxFuture, keyMaxOutOfOrderness, keyWatermarkWindow, keyWatermarkLateness) &&
		c.Watermark != Punctuated && c.MaxFuture > 0 && hold > mostSkews*c.MaxFuture {
		f.add(keyMaxFuture, fmt.Sprintf("%s is less than a quarter of %s=%s", show(c.MaxFuture), key, show(hold)),
			"raise it, or turn it off with 0")
	}
}

// defaultMaxFuture returns how far ahead of the wall clock an event time may be where nobody
// has said so, and what that follows from. It always leaves the guard enough room: see
// validateHold.
//
// With a bound b, a record that is s ahead of the wall clock puts the watermark at b - s
// behind it, and another record is on time if its delay is less than that. Half of the bound
// is the largest share for clocks that leaves delays no smaller one. See
// docs/design/future.md.
func (c *Config) defaultMaxFuture() (d time.Duration, origin string) {
	if c.Watermark == Punctuated {
		return markersMaxFuture, "default: only markers move the watermark"
	}
	hold, key := c.hold()
	if d = hold / 2; d < leastMaxFuture {
		return leastMaxFuture, "default: the least, as half of " + key + " is less"
	}
	return d, "default: half of " + key
}

// UsualMaxFuture returns what MaxFuture is where nobody sets it.
func (c *Config) UsualMaxFuture() time.Duration {
	d, _ := c.defaultMaxFuture()
	return d
}

const (
	// leastMaxFuture is more than clocks that are kept by NTP are apart.
	leastMaxFuture = time.Second
	// markersMaxFuture is for markers: there is no bound that it could follow.
	markersMaxFuture = 5 * time.Minute
)

// ClockSlack is how far the clock of a producer may be off before a warning. A clock that is
// off makes records late: its own if it is behind, those of others if it is ahead. At half of
// the bound, delays have the other half left, and there is time to set it. The future guard
// refuses records further ahead than MaxFuture.
func (c Config) ClockSlack() time.Duration {
	slack, _ := c.hold()
	slack /= 2
	if c.MaxFuture > 0 {
		slack = min(slack, c.MaxFuture)
	}
	return max(slack, leastSlack)
}

// leastSlack is how long a record may be under way when nothing is wrong.
const leastSlack = time.Second

// mostSkews is how many times the future guard's skew the bound may be. The
// guard can carry watermark.MaxSteps steps for the records held, at most one
// in a quarter of the skew; this leaves half of them spare.
const mostSkews = watermark.MaxSteps / 4 / 2

func notNegative(f *faults, key string, d time.Duration) {
	if d < 0 {
		f.add(key, fmt.Sprintf("%s is negative", show(d)), "")
	}
}

func within(f *faults, key string, d, least, most time.Duration, hint string) {
	if f.read(key) && (d < least || d > most) {
		f.add(key, fmt.Sprintf("%s is not from %s to %s", show(d), show(least), show(most)), hint)
	}
}

// validateCommitInterval leaves a transaction twice the time it needs: one that the brokers
// abort costs a replay of every partition.
func (c *Config) validateCommitInterval(f *faults) {
	switch {
	case !f.read(keyCommitInterval):
	case c.CommitInterval <= 0:
		f.add(keyCommitInterval, fmt.Sprintf("%s is not above 0", show(c.CommitInterval)), "")
	case f.read(keyTransactionTimeout) && c.CommitInterval >= c.TransactionTimeout/2:
		f.add(keyCommitInterval, fmt.Sprintf("%s is not less than half of %s=%s", show(c.CommitInterval), keyTransactionTimeout, show(c.TransactionTimeout)), "")
	}
}

func (c *Config) validateTLS(f *faults) {
	if !f.read(keyTLS) {
		return
	}
	for _, s := range c.brokerTLS().settings() {
		if s[1] != "" && !c.TLS {
			f.add(s[0], "has no effect without TLS", "set "+keyTLS+"=true")
		}
	}
	if !c.TLS {
		return
	}
	c.brokerTLS().validate(f)
}
