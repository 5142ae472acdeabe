package repair

import "slices"

// Counts are what became of late records. Times are ms since the Unix epoch.
type Counts struct {
	Read         int64            `json:"read"`
	Corrections  int64            `json:"corrections"`
	Expired      int64            `json:"expired"`
	OtherReasons map[string]int64 `json:"other_reasons"`
	Corrected    int64            `json:"already_corrected"`
	Unreadable   int64            `json:"unreadable"`
	NoTime       int64            `json:"no_event_time"` // by the sources of now
	Repeated     int64            `json:"repeated"`      // by a sidecar without transactions
	Gone         int64            `json:"gone"`          // offsets that retention took first
	Transactions int              `json:"transactions"`
	Oldest       *int64           `json:"oldest_event_time_ms"` // of the corrections
	Newest       *int64           `json:"newest_event_time_ms"`
}

func (c *Counts) publish(ms int64) {
	c.Corrections++
	if c.Oldest == nil {
		c.Oldest, c.Newest = new(ms), new(ms)
	}
	*c.Oldest, *c.Newest = min(*c.Oldest, ms), max(*c.Newest, ms)
}

// duplicate is a reason that needs no correction: the record was released before.
const duplicate = "duplicate"

// unknownReason stands for all unknown reasons: otherwise, whoever can write to the late
// topic could fill the report with them.
const unknownReason = "unknown"

func (c *Counts) other(reason string) {
	if !slices.Contains(Reasons, reason) && reason != duplicate {
		reason = unknownReason
	}
	if c.OtherReasons == nil {
		c.OtherReasons = map[string]int64{}
	}
	c.OtherReasons[reason]++
}

// Others returns how many records were not corrected because of their reason.
func (c *Counts) Others() (n int64) {
	for _, k := range c.OtherReasons {
		n += k
	}
	return n
}

// Add adds the counts of o.
func (c *Counts) Add(d Counts) {
	c.Read += d.Read
	c.Corrections += d.Corrections
	c.Expired += d.Expired
	c.Corrected += d.Corrected
	c.Unreadable += d.Unreadable
	c.NoTime += d.NoTime
	c.Repeated += d.Repeated
	c.Gone += d.Gone
	c.Transactions += d.Transactions
	for reason, n := range d.OtherReasons {
		c.OtherReasons[reason] += n
	}
	if d.Oldest == nil {
		return
	}
	if c.Oldest == nil {
		c.Oldest, c.Newest = new(*d.Oldest), new(*d.Newest)
	}
	*c.Oldest, *c.Newest = min(*c.Oldest, *d.Oldest), max(*c.Newest, *d.Newest)
}

// Partition is what became of a stretch.
type Partition struct {
	Topic     string `json:"topic"`
	Late      string `json:"late"`
	To        string `json:"to"`
	Partition int32  `json:"partition"`
	Counts
}

// Report is one run.
type Report struct {
	DryRun bool `json:"dry_run"` // nothing was written: it is what would be done
	Counts
	Partitions []Partition `json:"partitions"` // in which there was something to do, in order of topics and partitions
}

// NewReport returns the report of a run that has done nothing yet.
func NewReport(dryRun bool) Report {
	return Report{DryRun: dryRun, Counts: Counts{OtherReasons: map[string]int64{}}, Partitions: []Partition{}}
}

// Add adds shares that were made durable together.
func (rep *Report) Add(shares []*Share) {
	for _, s := range shares {
		s.counts.Transactions = 1
		rep.partition(s.Stretch).Add(s.counts)
		rep.Counts.Add(s.counts)
		rep.Counts.Transactions--
	}
	rep.Counts.Transactions++
}

func (rep *Report) partition(s Stretch) *Counts {
	same := func(p Partition) bool { return p.Late == s.Late && p.Partition == s.Partition }
	i := slices.IndexFunc(rep.Partitions, same)
	if i < 0 {
		i = len(rep.Partitions)
		rep.Partitions = append(rep.Partitions, Partition{
			Topic: s.Source, Late: s.Late, To: s.To, Partition: s.Partition, Counts: Counts{OtherReasons: map[string]int64{}},
		})
	}
	return &rep.Partitions[i].Counts
}
