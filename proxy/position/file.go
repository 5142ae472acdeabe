package position

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tidemarkhq/tidemark/proxy/fault"
	"github.com/tidemarkhq/tidemark/proxy/group"
	"github.com/tidemarkhq/tidemark/reorder"
)

// File is an export: the positions of a group at one moment, and where the outputs ended.
type File struct {
	Version    int         `json:"version"`
	Cluster    string      `json:"cluster_id"`
	Group      string      `json:"group"`
	Partitions []FilePlace `json:"partitions"`
}

const fileVersion = 1

// FilePlace is the position of a partition in an export.
type FilePlace struct {
	Topic       string `json:"topic"`
	TopicID     string `json:"topic_id"`
	Partition   int32  `json:"partition"`
	Offset      int64  `json:"offset"`
	LeaderEpoch int32  `json:"leader_epoch"`
	Metadata    string `json:"metadata"`
	OrderedEnd  int64  `json:"ordered_end"` // the last stable offsets of the outputs
	LateEnd     int64  `json:"late_end"`
}

// Export returns the positions of all partitions that have one. It may run beside the
// group: the ends of the outputs are read before what is committed. What comes out and is
// committed in between is behind these ends, so that restore refuses. Where nobody is at work,
// it waits for the end of the last transaction, which brokers write a moment after they have
// promised it: else that would be such a case, too.
func (t *Tool) Export(ctx context.Context) (File, error) {
	f := File{Version: fileVersion, Cluster: t.cluster, Group: t.Config.Group, Partitions: []FilePlace{}}
	if members, err := t.members(ctx); err == nil && len(members) == 0 {
		// A transaction that stays open is a stranger's: its records are not ours.
		if err := t.settle(ctx, t.sources(t.every())); err != nil && ctx.Err() != nil {
			return f, err
		}
	}
	ends := map[string]map[int32]bounds{}
	if outputs := t.outputsOf(); len(outputs) > 0 {
		var err error
		if ends, err = t.listed(ctx, outputs...); err != nil {
			return f, err
		}
	}
	all, err := t.fetch(ctx, true)
	if err != nil {
		return f, err
	}
	for _, src := range t.sources(t.every()) {
		c := all[src.Topic][src.Partition]
		if c.Offset < 0 {
			continue
		}
		id := t.topics[src.Topic].ID
		f.Partitions = append(f.Partitions, FilePlace{
			Topic: src.Topic, TopicID: hex.EncodeToString(id[:]), Partition: src.Partition,
			Offset: c.Offset, LeaderEpoch: c.LeaderEpoch, Metadata: c.Metadata,
			OrderedEnd: ends[src.Ordered][src.Partition].end, LateEnd: ends[src.Late][src.Partition].end,
		})
	}
	return f, nil
}

// ReadFile reads an export.
func ReadFile(r io.Reader) (f File, err error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return f, fault.Usage(fmt.Errorf("read the export: %w", err), "it has to be what `tidemark position export` wrote")
	}
	if f.Version != fileVersion {
		return f, fault.Usage(fmt.Errorf("read the export: version %d is not known", f.Version), "use the version of Tidemark that wrote it")
	}
	return f, nil
}

// PlanRestore plans to write an export back. It refuses one that is of another group,
// cluster or topic, and one behind which something has come out: that would come out again.
func (t *Tool) PlanRestore(ctx context.Context, f File) (*Plan, error) {
	switch {
	case f.Group != t.Config.Group:
		return nil, fault.Usage(fmt.Errorf("restore the position of group %q: the export is of group %q", t.Config.Group, f.Group), "a position is for the group that it was written by: set TIDEMARK_GROUP")
	case f.Cluster != t.cluster && f.Cluster != "" && t.cluster != "":
		return nil, fault.Usage(fmt.Errorf("restore the position of group %q: the export is of cluster %s, and this is %s", t.Config.Group, f.Cluster, t.cluster),
			"offsets of one cluster mean other records in another: begin where the group was translated to, or with --from: `tidemark position new-epoch`")
	}
	of := Partitions{}
	places := map[string]map[int32]FilePlace{}
	for _, p := range f.Partitions {
		if _, ok := t.topics[p.Topic]; !ok {
			continue
		}
		if places[p.Topic] == nil {
			places[p.Topic] = map[int32]FilePlace{}
		}
		if _, twice := places[p.Topic][p.Partition]; twice {
			return nil, fault.Usage(fmt.Errorf("restore %s partition %d: the export has it twice", p.Topic, p.Partition), "it has to be what `tidemark position export` wrote")
		}
		places[p.Topic][p.Partition] = p
		of[p.Topic] = append(of[p.Topic], p.Partition)
	}
	plan, err := t.begin(ctx, "restore", of)
	if err != nil {
		return nil, err
	}
	for _, src := range t.sources(of) {
		at := places[src.Topic][src.Partition]
		if src.Partition >= t.topics[src.Topic].Partitions {
			return nil, fault.Usage(fmt.Errorf("restore %s partition %d: the topic has no such partition", src.Topic, src.Partition), "")
		}
		v := t.view(src, group.Commit{Offset: at.Offset, LeaderEpoch: at.LeaderEpoch, Metadata: at.Metadata})
		if errors.Is(v.Err, reorder.ErrFingerprint) {
			return nil, fault.Usage(fmt.Errorf("restore %s partition %d: %w", src.Topic, src.Partition, v.Err), "set the TIDEMARK_EVENT_TIME that it was written with; if that was wrong, restore it with that, and then begin a new epoch with the right one: `tidemark position new-epoch`")
		}
		if v.Err != nil {
			return nil, fault.Usage(fmt.Errorf("restore %s partition %d: %w", src.Topic, src.Partition, v.Err), "a position can only be restored where and as it was written; make a new one: `tidemark position rebuild`, or `tidemark position new-epoch`")
		}
		ordered, late := plan.ends[src.Ordered][src.Partition].end, plan.ends[src.Late][src.Partition].end
		if ordered != at.OrderedEnd || late != at.LateEnd {
			return nil, fault.Usage(fmt.Errorf("restore %s partition %d: since the export the outputs have changed (%s ends at %d and not at %d, %s at %d and not at %d); what came out would come out again",
				src.Topic, src.Partition, src.Ordered, ordered, at.OrderedEnd, src.Late, late, at.LateEnd),
				"make the position from the outputs: `tidemark position rebuild`")
		}
		t.add(plan, src, v.Snapshot, v.Commit, "")
	}
	return plan, nil
}
