package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// ErrTopicsChanged says that the preflight has to check the topics again.
var ErrTopicsChanged = fault.NewError(fault.None, "topics have changed")

// Topic is a source topic and where its records go.
type Topic struct {
	Name       string
	ID         [16]byte // changes when the topic is deleted and created again
	Partitions int32
	Usable     int32 // partitions that have a partition in both outputs
	Ordered    string
	Late       string

	// max.message.bytes of the outputs; 0 if we are not allowed to read it.
	OrderedMax, LateMax int32
	NeededMax           int32 // what they need for every record of the source to fit; 0 if not known
}

// HeaderRoom is how much larger than the source's a batch of an output may be, in bytes:
// room for the headers that are added to a record that fills the source's limit. Windows
// have halfRoom of it; if they need more, the output gets more.
const (
	HeaderRoom = 1024
	halfRoom   = HeaderRoom / 2
)

func (r *round) room() int64 {
	return HeaderRoom + max(0, int64(r.cfg.OutputHeaders().Room())-halfRoom)
}

const unlimited = math.MaxInt64

// inherited are the settings that a new output copies from its source, where they are set
// on the source itself. Brokers' defaults apply to source and output alike; copying those
// would pin them.
var inherited = []string{
	fault.RetentionMs, fault.RetentionBytes, "segment.ms", "segment.bytes",
	"remote.storage.enable", "local.retention.ms", "local.retention.bytes",
	"min.insync.replicas", "compression.type",
}

// settings are the effective settings of a topic; nil if we are not allowed to read them.
type settings map[string]kadm.Config

func settingsOf(c kadm.ResourceConfig) settings {
	s := make(settings, len(c.Configs))
	for _, kv := range c.Configs {
		s[kv.Key] = kv
	}
	return s
}

func (s settings) text(key string) string {
	c := s[key]
	return c.MaybeValue()
}

// limit returns a numeric limit; a negative number means unlimited. A topic that does not
// delete keeps everything, whatever its retention.
func (s settings) limit(key string) (int64, bool) {
	n, err := strconv.ParseInt(s.text(key), 10, 64)
	if n < 0 || strings.HasPrefix(key, "retention.") && !s.cleans("delete") {
		n = unlimited
	}
	return n, err == nil
}

// maxBatch returns the largest batch that the topic accepts, in bytes; 0 if not known.
func (s settings) maxBatch() int32 {
	n, ok := s.limit(fault.MaxMessageBytes)
	if !ok {
		return 0
	}
	return int32(min(n, math.MaxInt32))
}

// MaxBatches returns the largest batch that each of the topics accepts now, in bytes; 0 if not
// known.
func MaxBatches(ctx context.Context, adm *kadm.Client, topics []string) (map[string]int32, error) {
	found, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	most := map[string]int32{}
	for _, c := range found {
		most[c.Name] = settingsOf(c).maxBatch()
	}
	return most, nil
}

// neededBatch returns the largest batch that an output of the topic has to accept, in bytes;
// 0 if not known. room is for added headers.
func (s settings) neededBatch(room int64) int32 {
	n, ok := s.limit(fault.MaxMessageBytes)
	if !ok {
		return 0
	}
	return int32(withHeaders(n, room))
}

func (s settings) cleans(how string) bool {
	for policy := range strings.SplitSeq(s.text(fault.CleanupPolicy), ",") {
		if strings.TrimSpace(policy) == how {
			return true
		}
	}
	return false
}

// compactedOnly reports whether records are removed only when newer ones replace them.
func (s settings) compactedOnly() bool { return s.cleans("compact") && !s.cleans("delete") }

// view is what the brokers show of a topic.
type view struct {
	kadm.TopicDetail
	role     string
	name     string
	denied   bool // we are not even allowed to know whether it exists
	settings settings
}

func (v *view) String() string { return v.role + " " + v.name }

func (v *view) missing() bool { return errors.Is(v.Err, kerr.UnknownTopicOrPartition) }

func (v *view) partitions() int32 { return int32(len(v.Partitions)) }

// lacks reports whether an operation is known to be denied. Brokers before Kafka 2.3 do not
// say.
func (v *view) lacks(op kadm.ACLOperation) bool {
	return len(v.AuthorizedOperations) > 0 && !slices.Contains(v.AuthorizedOperations, op)
}

// replicas is the lowest replica count of a partition: while partitions move between
// brokers, some have more than they were created with.
func (v *view) replicas() int16 {
	n := math.MaxInt16
	for _, p := range v.Partitions {
		n = min(n, len(p.Replicas))
	}
	return int16(n)
}

// source inspects a source and its outputs. It reads the outputs first: they only grow
// after their source, so the source, read last, is never behind them.
func (r *round) source(ctx context.Context, name string) error {
	ordered, err := r.look(ctx, "ordered output", r.cfg.OrderedTopic(name))
	if err != nil {
		return err
	}
	late, err := r.look(ctx, "late output", r.cfg.LateTopic(name))
	if err != nil {
		return err
	}
	src, err := r.look(ctx, "source topic", name)
	if err != nil {
		return err
	}
	usable, err := r.readable(ctx, src)
	if err != nil {
		return err
	}
	if usable {
		if err := r.emptied(ctx, src, ordered, late); err != nil {
			return err
		}
	}
	pairs := src.partitions()
	for _, out := range []*view{ordered, late} {
		if !r.writable(out) || !usable {
			continue
		}
		n, err := r.output(ctx, src, out)
		if err != nil {
			return err
		}
		pairs = min(pairs, n)
	}
	r.topics[name] = Topic{
		Name: name, ID: src.ID, Partitions: src.partitions(), Usable: pairs, Ordered: ordered.name, Late: late.name,
		OrderedMax: ordered.settings.maxBatch(), LateMax: late.settings.maxBatch(), NeededMax: src.settings.neededBatch(r.room()),
	}
	return nil
}

// readable reports whether a source can be compared with its outputs.
func (r *round) readable(ctx context.Context, src *view) (bool, error) {
	switch {
	case src.denied:
		r.fault(fmt.Errorf("look up the %s: it does not exist, or not allowed to READ it: %w", src, kerr.TopicAuthorizationFailed),
			"check the name, or allow it: "+r.tools.Allow("--topic", src.name, kadm.OpRead, kadm.OpDescribe))
		return false, nil
	case src.missing():
		r.fault(fmt.Errorf("look up the %s: it does not exist", src), Nearest(ctx, r.adm, src.name)+
			"check TIDEMARK_TOPICS, or create it with the partitions it needs: "+r.tools.Create(src.name, 1, 0, nil))
		return false, nil
	case src.IsInternal:
		r.fault(fmt.Errorf("read the %s: it is internal to Kafka", src), "remove it from TIDEMARK_TOPICS")
		return false, nil
	case src.lacks(kadm.OpRead):
		r.fault(fmt.Errorf("read the %s: not allowed to READ it: %w", src, kerr.TopicAuthorizationFailed),
			"allow it: "+r.tools.Allow("--topic", src.name, kadm.OpRead, kadm.OpDescribe))
	}
	r.clock(src)
	if behind, any := r.extract.BehindTimestamp(); any {
		r.warn("a source of event times stands behind timestamp, which almost every record has, so it hardly ever decides", src.name,
			"if "+behind+" is meant to decide, put timestamp last in TIDEMARK_EVENT_TIME")
	}
	return true, r.noLoop(ctx, src)
}

// noLoop refuses a source that is the output of another topic, even of another group: its
// records are ordered or late already. It is an output if the topic that its name derives
// from exists.
func (r *round) noLoop(ctx context.Context, src *view) error {
	for _, suffix := range []string{r.cfg.OrderedSuffix, r.cfg.LateSuffix} {
		name, ok := strings.CutSuffix(src.name, suffix)
		if !ok || name == "" {
			continue
		}
		base, err := r.find(ctx, "topic", name)
		if err != nil {
			return err
		}
		if !base.denied && !base.missing() {
			r.fault(fmt.Errorf("read the %s: it is an output of %s", src, name),
				fmt.Sprintf("put %s in TIDEMARK_TOPICS instead; if %s is not an output, choose other suffixes with TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX", name, src.name))
		}
	}
	return nil
}

// clock refuses to order by a timestamp that is only the arrival time.
func (r *round) clock(src *view) {
	if src.settings.text(fault.TimestampType) != fault.LogAppendTime || !r.extract.UsesTimestamp() {
		return
	}
	hint := CreateTimeHint(r.tools, src.name)
	if r.extract.UsesOnlyTimestamp() {
		r.fault(fmt.Errorf("take event times from the timestamps of the %s: its %s is %s, so they are arrival times", src, fault.TimestampType, fault.LogAppendTime), hint)
		return
	}
	r.warn(ArrivalWarning, src.name, hint)
}

// ArrivalWarning is logged when arrival times may stand in for event times.
const ArrivalWarning = "records without an event time of their own are ordered by arrival time: " + fault.TimestampType + " is " + fault.LogAppendTime

// CreateTimeHint says how to get event times for a topic whose timestamps are arrival times.
func CreateTimeHint(t fault.Commands, topic string) string {
	return "keep the producers' timestamps: " + t.Set(topic, fault.TimestampType, "CreateTime") + "; or, to take event times from a header or a field, " + timestamp.Change("header:NAME or json:PATH")
}

// writable reports whether an output can be checked further.
func (r *round) writable(out *view) bool {
	if out.denied || out.lacks(kadm.OpWrite) {
		r.fault(fmt.Errorf("write to the %s: not allowed to WRITE it: %w", out, kerr.TopicAuthorizationFailed),
			"allow it: "+r.tools.Allow("--topic", out.name, kadm.OpWrite, kadm.OpDescribe, kadm.OpRead))
		return false
	}
	if out.lacks(kadm.OpRead) {
		r.warn("not allowed to read an output: transactions left open by a dead instance are not ended early, and no new epoch can begin", out.name,
			"allow it: "+r.tools.Allow("--topic", out.name, kadm.OpRead))
	}
	return true
}

// output decides how an output has to change, and returns how many partitions it will have.
func (r *round) output(ctx context.Context, src, out *view) (partitions int32, err error) {
	partitions = src.partitions()
	switch have, want := out.partitions(), src.partitions(); {
	case out.missing():
		return partitions, r.missing(ctx, src, out)
	case have > want:
		r.fault(fmt.Errorf("write to the %s: it has %d partitions, more than the %[4]d of %[3]s", out, have, src.name, want),
			fmt.Sprintf("partitions cannot be removed: delete %s, which the next start creates again, or choose other outputs with TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX", out.name))
	case have < want:
		grown, err := r.grow(ctx, growth{out.name, want})
		if err != nil {
			return 0, err
		}
		if !grown {
			partitions = have
		}
	}
	r.compare(src, out)
	return partitions, r.led(out)
}

// led has the round repeated while partitions of an output cannot be written to.
func (r *round) led(out *view) error {
	for _, p := range out.Partitions.Sorted() {
		switch {
		case p.Err == nil:
		case r.lenient && errors.Is(p.Err, kerr.LeaderNotAvailable):
			r.warn("partitions of an output have no leader; their source partitions wait", out.name, "check whether the brokers that hold them are down")
		case r.waiting == nil:
			r.waiting = fmt.Errorf("write to the %s, partition %d: %w: %w", out, p.Partition, errUnsettled, p.Err)
			if errors.Is(p.Err, kerr.LeaderNotAvailable) {
				r.waiting = fmt.Errorf("%w: %w", r.waiting, errLeaderless)
			}
		}
	}
	return nil
}

// missing plans to create an output, if the source's settings say how.
func (r *round) missing(ctx context.Context, src, out *view) error {
	c := creation{out.name, src.partitions(), src.replicas(), newSettings(src.settings, r.room())}
	switch {
	case src.settings.compactedOnly():
		r.fault(fmt.Errorf("create the %s: its source is compacted and has no retention to copy", out),
			"outputs must not be compacted: choose how long to keep records (-1: for ever), and create it: "+c.byHand(r.tools))
		return nil
	case src.settings.cleans("compact"):
		r.warn("a source is compacted, but its outputs are not: they keep every record until the retention ends", src.name, "")
	}
	return r.plan(ctx, c)
}

// newSettings returns the settings that an output is created with, sorted by key. room is
// for added headers. If the source's settings are hidden, they are only those that every
// broker knows.
func newSettings(src settings, room int64) []fault.Setting {
	made := []fault.Setting{{Key: fault.CleanupPolicy, Value: "delete"}, {Key: fault.TimestampType, Value: "CreateTime"}}
	if n, ok := src.limit(fault.MaxMessageBytes); ok {
		made = append(made, fault.Setting{Key: fault.MaxMessageBytes, Value: number(fault.MaxMessageBytes, withHeaders(n, room))})
	}
	for _, key := range inherited {
		if c := src[key]; c.Source == kmsg.ConfigSourceDynamicTopicConfig && c.Value != nil {
			made = append(made, fault.Setting{Key: key, Value: *c.Value})
		}
	}
	if src != nil && !src.cleans("delete") {
		made = slices.DeleteFunc(made, func(s fault.Setting) bool { return s.Key == fault.RetentionMs || s.Key == fault.RetentionBytes })
		made = append(made, fault.Setting{Key: fault.RetentionMs, Value: "-1"}, fault.Setting{Key: fault.RetentionBytes, Value: "-1"})
	}
	// The source has accepted these records. They are copied later, when their timestamps
	// are further in the past, and perhaps after the source became stricter: a limit like
	// the source's would refuse what the source holds.
	for _, key := range []string{fault.TimestampBefore, fault.TimestampAfter, fault.TimestampEither} {
		if _, ok := src[key]; ok {
			made = append(made, fault.Setting{Key: key, Value: number(key, unlimited)})
		}
	}
	slices.SortFunc(made, func(a, b fault.Setting) int { return cmp.Compare(a.Key, b.Key) })
	return made
}

// compare refuses an output that would change or lose records, and warns of one that may
// not accept or keep them all.
func (r *round) compare(src, out *view) {
	if out.settings.cleans("compact") {
		r.fault(fmt.Errorf("write to the %s: it is compacted, and would lose all but the last record of every key", out),
			"let it delete by age instead: "+r.tools.Set(out.name, fault.CleanupPolicy, "delete"))
	}
	// Not a warning: every copy would have another timestamp than its original, and could
	// not be told from a changed record.
	if out.settings.text(fault.TimestampType) == fault.LogAppendTime {
		r.fault(fmt.Errorf("write to the %s: its %s is %s, which replaces the timestamps of the records", out, fault.TimestampType, fault.LogAppendTime),
			"keep the records' timestamps: "+r.tools.Set(out.name, fault.TimestampType, "CreateTime"))
	}
	r.outlive(out.name, out.settings)
	for _, n := range needs(src.settings, r.room()) {
		if have, ok := out.settings.limit(n.key); ok && have < n.least {
			r.warn(n.otherwise, out.name, fmt.Sprintf("raise it from %s: %s", number(n.key, have), r.tools.Set(out.name, n.key, number(n.key, n.least))))
		}
	}
}

// need is a limit that an output should not be below.
type need struct {
	key       string
	least     int64
	otherwise string // the warning if it is
}

// needs returns the limits that the outputs of a source need.
func needs(src settings, room int64) (all []need) {
	add := func(key string, least int64, otherwise string) {
		if _, ok := src[key]; ok {
			all = append(all, need{key, least, otherwise})
		}
	}
	add(fault.MaxMessageBytes, int64(src.neededBatch(room)), "an output may refuse a large record of its source once it has headers: max.message.bytes is too small")
	age, _ := src.limit(fault.RetentionMs)
	if !src.compactedOnly() { // whose outputs were created by hand, with a retention somebody chose
		bytes, _ := src.limit(fault.RetentionBytes)
		add(fault.RetentionMs, age, "an output keeps records for less time than its source")
		add(fault.RetentionBytes, bytes, "an output keeps fewer bytes than its source")
	}
	stamp := func(key string) int64 {
		n, _ := src.limit(key)
		if src.text(fault.TimestampType) == fault.LogAppendTime { // then the limits do not apply
			n = 0
		}
		return n
	}
	// A record that was at the limit when it was written has aged since.
	const old = "an output may refuse an old record of its source: its limit on timestamps in the past is too small"
	add(fault.TimestampBefore, plus(stamp(fault.TimestampBefore), age), old)
	add(fault.TimestampEither, plus(stamp(fault.TimestampEither), age), old)
	add(fault.TimestampAfter, stamp(fault.TimestampAfter), "an output may refuse a record of its source that is ahead of the clock: its limit on timestamps in the future is too small")
	return all
}

// outlive warns if records may be deleted as soon as they are released: retention counts
// from the records' timestamps, not from when they were written.
func (r *round) outlive(name string, s settings) {
	held := r.cfg.MaxOutOfOrderness + r.cfg.IdleTimeout
	if kept, ok := s.limit(fault.RetentionMs); ok && kept < held.Milliseconds() {
		r.warn(fmt.Sprintf("an output keeps records for %v, less than the %v for which they may be held", time.Duration(kept)*time.Millisecond, held), name,
			"raise "+fault.RetentionMs+", or lower TIDEMARK_MAX_OUT_OF_ORDERNESS")
	}
}

// number formats a limit for Kafka.
func number(key string, n int64) string {
	if n == unlimited && strings.HasPrefix(key, "retention.") {
		n = -1
	}
	return strconv.FormatInt(n, 10)
}

func withHeaders(bytes, room int64) int64 { return min(plus(bytes, room), math.MaxInt32) }

// plus adds, saturating at unlimited.
func plus(a, b int64) int64 {
	if a > unlimited-b {
		return unlimited
	}
	return a + b
}
