package position

import (
	"context"
	"errors"
	"fmt"

	"github.com/tidemarkhq/tidemark/emit"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/reorder"
)

// View is the position of a partition as it is committed.
type View struct {
	emit.Source
	Commit   group.Commit
	Snapshot reorder.Snapshot // whole, unless the metadata cannot be read
	Readable bool             // the metadata can be read
	Earlier  bool             // an earlier version wrote it, which read some event times otherwise
	Err      error            // why a sidecar would not go on from it; nil: it would
	End      int64            // of the source
}

// Fingerprint says whether the position was written with the event-time sources of now.
func (v *View) Fingerprint() bool { return v.Readable && !errors.Is(v.Err, reorder.ErrFingerprint) }

// SameTopic says whether it was written for the topic that there is now.
func (v *View) SameTopic() bool { return v.Readable && !errors.Is(v.Err, reorder.ErrRecreated) }

// Why a position without metadata cannot be used.
var (
	errNoCommit = errors.New("nothing is committed; one begins at TIDEMARK_START, if the outputs are empty")
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
	var views []View
	for _, src := range t.sources(t.every()) {
		v := t.view(src, all[src.Topic][src.Partition])
		v.End = ends[src.Topic][src.Partition].end
		views = append(views, v)
	}
	return views, nil
}

func (t *Tool) view(src emit.Source, c group.Commit) View {
	v := View{Source: src, Commit: c}
	switch {
	case c.Offset < 0:
		v.Err = errNoCommit
		return v
	case c.Metadata == "":
		v.Err = errBare
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
	if v.Err != nil {
		v.Err = fmt.Errorf("its metadata was %w", v.Err)
	}
	return v
}
