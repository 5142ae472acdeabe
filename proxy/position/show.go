package position

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/proxy/recovery"
	"github.com/tidemarkhq/tidemark/reorder"
)

// View is the position of a partition as it is committed.
type View struct {
	emit.Source
	Commit   group.Commit
	Snapshot reorder.Snapshot // whole, unless the metadata cannot be read
	Readable bool             // the metadata can be read
	Earlier  bool             // an earlier version wrote it, which read some event times otherwise
	Times    Times            // by which event times it was written, where it can be read
	Begins   bool             // no metadata is committed, and nothing has come out: a sidecar begins there
	Err      error            // why a sidecar would not go on from it, or begin; nil: it would
	Advice   string           // then: what to do
	End      int64            // of the source
}

// Times says by which event-time sources a position was written, whether or not a sidecar
// would go on from it: with nothing held it goes on with any.
type Times int

const (
	TimesOfNow     Times = iota
	TimesOfEarlier       // the same sources, in a version that read some event times otherwise
	TimesOfOthers
)

// timesOf returns by which event-time sources metadata was written that can be read.
func (t *Tool) timesOf(metadata string) Times {
	switch written := reorder.Fingerprint(metadata); {
	case written == t.Config.EventTime.Fingerprint():
		return TimesOfNow
	case slices.Contains(t.Config.EventTime.Earlier(), written):
		return TimesOfEarlier
	}
	return TimesOfOthers
}

// SameTopic says whether it was written for the topic that there is now.
func (v *View) SameTopic() bool { return v.Readable && !errors.Is(v.Err, reorder.ErrRecreated) }

// Why a position without metadata cannot be used.
var (
	errNoCommit = errors.New("nothing is committed, and the outputs are not empty")
	errBare     = errors.New("the offset was committed without metadata: by hand, by another program, or by a tool that mirrors groups")
)

// Show decodes the positions of all partitions.
func (t *Tool) Show(ctx context.Context) ([]View, error) {
	all, err := t.fetch(ctx, false)
	if err != nil {
		return nil, err
	}
	ends, err := t.listed(ctx, t.Config.Topics...)
	if err != nil {
		return nil, err
	}
	empty, err := t.emptyOutputs(ctx)
	if err != nil {
		return nil, err
	}
	var views []View
	for _, src := range t.sources(t.every()) {
		v := t.view(src, all[src.Topic][src.Partition])
		v.begins(empty)
		v.End = ends[src.Topic][src.Partition].end
		views = append(views, v)
	}
	return views, nil
}

// begins takes note that a sidecar begins at a position where nothing is committed, or an
// offset without metadata, for its outputs are empty.
func (v *View) begins(empty func(emit.Source) bool) {
	if (v.Commit.Offset < 0 || v.Commit.Metadata == "") && empty(v.Source) {
		v.Begins, v.Err, v.Advice = true, nil, ""
	}
}

// emptyOutputs returns what tells whether nothing has ever come out of a partition.
func (t *Tool) emptyOutputs(ctx context.Context) (func(emit.Source) bool, error) {
	written := map[string]map[int32]bool{}
	if outputs := t.outputsOf(); len(outputs) > 0 {
		ends, err := t.adm.ListEndOffsets(ctx, outputs...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list the ends of the outputs: %w", err)
		}
		ends.Each(func(o kadm.ListedOffset) {
			if written[o.Topic] == nil {
				written[o.Topic] = map[int32]bool{}
			}
			written[o.Topic][o.Partition] = o.Offset > 0
		})
	}
	return func(src emit.Source) bool {
		return !written[src.Ordered][src.Partition] && !written[src.Late][src.Partition]
	}, nil
}

func (t *Tool) view(src emit.Source, c group.Commit) View {
	v := View{Source: src, Commit: c}
	switch {
	case c.Offset < 0:
		v.Err, v.Advice = errNoCommit, recovery.Advice(nil, c.Offset)
		return v
	case c.Metadata == "":
		v.Err, v.Advice = errBare, recovery.Advice(nil, c.Offset)
		return v
	}
	v.Snapshot, v.Err = reorder.Decode(c.Metadata, c.Offset, c.LeaderEpoch, t.scope(src.Topic, src.Partition))
	for _, fingerprint := range t.Config.EventTime.Earlier() {
		if !errors.Is(v.Err, reorder.ErrFingerprint) {
			break
		}
		scope := t.scope(src.Topic, src.Partition)
		scope.Fingerprint = fingerprint
		if s, err := reorder.Decode(c.Metadata, c.Offset, c.LeaderEpoch, scope); err == nil {
			v.Snapshot, v.Err, v.Earlier = s, nil, true
		}
	}
	v.Readable = v.Err == nil || errors.Is(v.Err, reorder.ErrRecreated) || errors.Is(v.Err, reorder.ErrFingerprint)
	if v.Readable {
		v.Times = t.timesOf(c.Metadata)
	}
	if v.Err != nil {
		v.Err, v.Advice = fmt.Errorf("its metadata was %w", v.Err), recovery.Advice(v.Err, c.Offset)
	}
	return v
}
