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

	"github.com/agext/levenshtein"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemarkhq/tidemark/proxy/fault"
)

// ErrTopicsChanged says that the preflight has to look at the topics again.
var ErrTopicsChanged = fault.NewError(fault.None, "topics have changed")

// Topic is a source topic and where its records go.
type Topic struct {
	Name       string
	ID         [16]byte // changes when the topic is deleted and made again
	Partitions int32
	Usable     int32 // so many of them have a partition in both outputs
	Ordered    string
	Late       string

	// What a batch of an output may have, in bytes; 0 if we may not know.
	OrderedMax, LateMax int32
}

// headerRoom is how many bytes an output allows a batch beyond what the source
// does: the headers that are added to a record that fills the source's limit. Up to
// halfRoom are for windows, and more if they take more.
const (
	HeaderRoom = 1024
	halfRoom   = HeaderRoom / 2
)

func (r *round) room() int64 {
	return HeaderRoom + max(0, int64(r.cfg.OutputHeaders().Room())-halfRoom)
}

const unlimited = math.MaxInt64

// inherited is what a new output gets from its source, where it is set on the
// source itself. What the source merely has from its brokers, the output has
// from them too, and it goes on following them as the source does; to write it
// down would only pin it.
var inherited = []string{
	fault.RetentionMs, fault.RetentionBytes, "segment.ms", "segment.bytes",
	"remote.storage.enable", "local.retention.ms", "local.retention.bytes",
	"min.insync.replicas", "compression.type",
}

// settings are those of a topic in effect; nil if we may not see them.
type settings map[string]kadm.Config

func (s settings) text(key string) string {
	c := s[key]
	return c.MaybeValue()
}

// limit returns a number of which the negative ones mean that there is no
// limit. A topic that does not delete keeps everything, whatever its retention.
func (s settings) limit(key string) (int64, bool) {
	n, err := strconv.ParseInt(s.text(key), 10, 64)
	if n < 0 || strings.HasPrefix(key, "retention.") && !s.cleans("delete") {
		n = unlimited
	}
	return n, err == nil
}

// maxBatch returns what a batch may have, in bytes; 0 if it is not known.
func (s settings) maxBatch() int32 {
	n, ok := s.limit(fault.MaxMessageBytes)
	if !ok {
		return 0
	}
	return int32(min(n, math.MaxInt32))
}

func (s settings) cleans(how string) bool {
	for policy := range strings.SplitSeq(s.text(fault.CleanupPolicy), ",") {
		if strings.TrimSpace(policy) == how {
			return true
		}
	}
	return false
}

// compactedOnly reports whether records go only when newer ones replace them.
func (s settings) compactedOnly() bool { return s.cleans("compact") && !s.cleans("delete") }

// view is what the brokers show of a topic.
type view struct {
	kadm.TopicDetail
	role     string
	name     string
	denied   bool // we may not even know whether it exists
	settings settings
}

func (v *view) String() string { return v.role + " " + v.name }

func (v *view) missing() bool { return errors.Is(v.Err, kerr.UnknownTopicOrPartition) }

func (v *view) partitions() int32 { return int32(len(v.Partitions)) }

// lacks reports whether an operation is known to be forbidden. Brokers older
// than Kafka 2.3 do not say.
func (v *view) lacks(op kadm.ACLOperation) bool {
	return len(v.AuthorizedOperations) > 0 && !slices.Contains(v.AuthorizedOperations, op)
}

// replicas is the least number that a partition has: while partitions move
// between brokers, some have more than they were made with.
func (v *view) replicas() int16 {
	n := math.MaxInt16
	for _, p := range v.Partitions {
		n = min(n, len(p.Replicas))
	}
	return int16(n)
}

// source inspects a source and its outputs. The outputs are looked at first:
// they only ever grow after their source, so that what is seen of the source
// afterwards explains what was seen of them.
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
		OrderedMax: ordered.settings.maxBatch(), LateMax: late.settings.maxBatch(),
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
		r.fault(fmt.Errorf("look up the %s: it does not exist", src), r.nearest(ctx, src.name)+
			"check TIDEMARK_TOPICS, or create it, with as many partitions as it needs: "+r.tools.Create(src.name, 1, 0, nil))
		return false, nil
	case src.IsInternal:
		r.fault(fmt.Errorf("read the %s: it is internal to Kafka", src), "take it out of TIDEMARK_TOPICS")
		return false, nil
	case src.lacks(kadm.OpRead):
		r.fault(fmt.Errorf("read the %s: not allowed to READ it: %w", src, kerr.TopicAuthorizationFailed),
			"allow it: "+r.tools.Allow("--topic", src.name, kadm.OpRead, kadm.OpDescribe))
	}
	r.clock(src)
	return true, r.noLoop(ctx, src)
}

// noLoop refuses a source that is the output of another topic, be it that of
// another instance: its records were brought in order, or set aside, already.
// A topic that only happens to be named like one has no topic behind it.
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
				fmt.Sprintf("put %s in TIDEMARK_TOPICS instead; if %s really is a topic of its own, choose other suffixes with TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX", name, src.name))
		}
	}
	return nil
}

// clock refuses to order by a timestamp that is only the time of arrival.
func (r *round) clock(src *view) {
	if src.settings.text(fault.TimestampType) != fault.LogAppendTime || !r.extract.UsesTimestamp() {
		return
	}
	mend := CreateTimeHint(r.tools, src.name)
	if r.extract.UsesOnlyTimestamp() {
		r.fault(fmt.Errorf("take event times from the timestamps of the %s: its %s is %s, so they only tell when a record arrived", src, fault.TimestampType, fault.LogAppendTime), mend)
		return
	}
	r.warn(ArrivalWarning, src.name, mend)
}

const ArrivalWarning = "records without an event time of their own are ordered by the time of their arrival: " + fault.TimestampType + " is " + fault.LogAppendTime

func CreateTimeHint(t fault.Commands, topic string) string {
	return "have the producers set the time: " + t.Set(topic, fault.TimestampType, "CreateTime") + "; or take event times from a header or a field: TIDEMARK_EVENT_TIME=header:NAME or json:PATH"
}

// nearest names topics that may have been meant.
func (r *round) nearest(ctx context.Context, name string) string {
	all, err := r.adm.ListTopics(ctx)
	if err != nil {
		return ""
	}
	const most = 3
	distance := func(other string) int { return levenshtein.Distance(name, other, nil) }
	near := slices.DeleteFunc(all.Names(), func(other string) bool {
		return distance(other) > max(2, len(name)/3)
	})
	slices.SortStableFunc(near, func(a, b string) int { return distance(a) - distance(b) })
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(near[:min(most, len(near))], " or ") + "? "
}

// writable reports whether it makes sense to look closer at an output.
func (r *round) writable(out *view) bool {
	if out.denied || out.lacks(kadm.OpWrite) {
		r.fault(fmt.Errorf("write to the %s: not allowed to WRITE it: %w", out, kerr.TopicAuthorizationFailed),
			"allow it: "+r.tools.Allow("--topic", out.name, kadm.OpWrite, kadm.OpDescribe, kadm.OpRead))
		return false
	}
	if out.lacks(kadm.OpRead) {
		r.warn("an output may not be read: transactions left open by an instance that is gone are not ended early, and no new epoch can begin", out.name,
			"allow it: "+r.tools.Allow("--topic", out.name, kadm.OpRead))
	}
	return true
}

// output decides what has to be done about an output, and returns how many
// partitions it will have.
func (r *round) output(ctx context.Context, src, out *view) (partitions int32, err error) {
	partitions = src.partitions()
	switch have, want := out.partitions(), src.partitions(); {
	case out.missing():
		return partitions, r.missing(ctx, src, out)
	case have > want:
		r.fault(fmt.Errorf("write to the %s: it has %d partitions, %s has %d, and they have to correspond", out, have, src.name, want),
			fmt.Sprintf("partitions cannot be taken away: delete %s, and it is created anew, or choose other outputs with TIDEMARK_ORDERED_SUFFIX and TIDEMARK_LATE_SUFFIX", out.name))
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

// led waits for partitions that cannot be written to.
func (r *round) led(out *view) error {
	for _, p := range out.Partitions.Sorted() {
		switch {
		case p.Err == nil:
		case r.lenient && errors.Is(p.Err, kerr.LeaderNotAvailable):
			r.warn("partitions of an output have no leader; what goes there waits", out.name, "see whether brokers that hold them are away")
		case r.waiting == nil:
			r.waiting = fmt.Errorf("write to the %s, partition %d: %w: %w", out, p.Partition, errUnsettled, p.Err)
			if errors.Is(p.Err, kerr.LeaderNotAvailable) {
				r.waiting = fmt.Errorf("%w: %w", r.waiting, errLeaderless)
			}
		}
	}
	return nil
}

// missing creates an output, if it is clear how.
func (r *round) missing(ctx context.Context, src, out *view) error {
	c := creation{out.name, src.partitions(), src.replicas(), newSettings(src.settings, r.room())}
	switch {
	case src.settings.compactedOnly():
		r.fault(fmt.Errorf("create the %s: its source is compacted and keeps no time to go by", out),
			"outputs must not be compacted, so decide how long to keep records (-1: for ever), and create it: "+c.byHand(r.tools))
		return nil
	case src.settings.cleans("compact"):
		r.warn("a source is compacted, its outputs are not: they keep every record until the retention ends", src.name, "")
	}
	return r.plan(ctx, c)
}

// newSettings returns what an output is created with, in order of the keys; room
// is for the headers that are added. Without sight of the source's settings that
// is only what any broker knows.
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
	// The source has let these records in. A copy is made later, when they are
	// further in the past, or after the source has become stricter: a limit
	// like the source's would refuse what the source holds.
	for _, key := range []string{fault.TimestampBefore, fault.TimestampAfter, fault.TimestampEither} {
		if _, ok := src[key]; ok {
			made = append(made, fault.Setting{Key: key, Value: number(key, unlimited)})
		}
	}
	slices.SortFunc(made, func(a, b fault.Setting) int { return cmp.Compare(a.Key, b.Key) })
	return made
}

// compare finds fault with an output on which records could not be what they
// were on the source, and warns of one that may not keep or take them all.
func (r *round) compare(src, out *view) {
	if out.settings.cleans("compact") {
		r.fault(fmt.Errorf("write to the %s: it is compacted, and would lose all but the last record of every key", out),
			"let it delete by age instead: "+r.tools.Set(out.name, fault.CleanupPolicy, "delete"))
	}
	// Not a warning: the timestamp of every copy would be another than that of
	// its original, and none of them could be told from a changed record.
	if out.settings.text(fault.TimestampType) == fault.LogAppendTime {
		r.fault(fmt.Errorf("write to the %s: its %s is %s, which replaces the timestamps of the records", out, fault.TimestampType, fault.LogAppendTime),
			"have it keep them: "+r.tools.Set(out.name, fault.TimestampType, "CreateTime"))
	}
	r.outlive(out.name, out.settings)
	for _, n := range needs(src.settings, r.room()) {
		if have, ok := out.settings.limit(n.key); ok && have < n.least {
			r.warn(n.otherwise, out.name, "raise it: "+r.tools.Set(out.name, n.key, number(n.key, n.least)))
		}
	}
}

// need is a limit that an output should not be below.
type need struct {
	key       string
	least     int64
	otherwise string // what may happen below it
}

// needs returns what a source asks of its outputs.
func needs(src settings, room int64) (all []need) {
	add := func(key string, least int64, otherwise string) {
		if _, ok := src[key]; ok {
			all = append(all, need{key, least, otherwise})
		}
	}
	size, _ := src.limit(fault.MaxMessageBytes)
	add(fault.MaxMessageBytes, withHeaders(size, room), "an output may refuse a large record of its source once it has headers: max.message.bytes is too small")
	age, _ := src.limit(fault.RetentionMs)
	if !src.compactedOnly() { // whose outputs were made by hand, as somebody thought fit
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
	// A record that was at the limit when it came has aged on the source since.
	const old = "an output may refuse an old record of its source: its limit on timestamps in the past is too small"
	add(fault.TimestampBefore, plus(stamp(fault.TimestampBefore), age), old)
	add(fault.TimestampEither, plus(stamp(fault.TimestampEither), age), old)
	add(fault.TimestampAfter, stamp(fault.TimestampAfter), "an output may refuse a record of its source that is ahead of the clock: its limit on timestamps in the future is too small")
	return all
}

// outlive warns if records may be deleted as soon as they come out: a topic
// deletes by the records' timestamps, whenever they were written.
func (r *round) outlive(name string, s settings) {
	held := r.cfg.MaxOutOfOrderness + r.cfg.IdleTimeout
	if kept, ok := s.limit(fault.RetentionMs); ok && kept < held.Milliseconds() {
		r.warn(fmt.Sprintf("an output keeps records for %v, less than the %v for which they may be held back", time.Duration(kept)*time.Millisecond, held), name,
			"keep them for longer with "+fault.RetentionMs+", or hold them back for less with TIDEMARK_MAX_OUT_OF_ORDERNESS")
	}
}

// number writes a limit as Kafka reads it.
func number(key string, n int64) string {
	if n == unlimited && strings.HasPrefix(key, "retention.") {
		n = -1
	}
	return strconv.FormatInt(n, 10)
}

func withHeaders(bytes, room int64) int64 { return min(plus(bytes, room), math.MaxInt32) }

// plus adds, and stops at unlimited.
func plus(a, b int64) int64 {
	if a > unlimited-b {
		return unlimited
	}
	return a + b
}
