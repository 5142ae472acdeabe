package report

import (
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/tidemarkhq/tidemark/bench/suite"
)

func init() { plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"} }

// colours are told apart by the colour-blind, too (Okabe and Ito).
var colours = []color.RGBA{
	{0, 114, 178, 255},
	{213, 94, 0, 255},
	{0, 158, 115, 255},
	{204, 121, 167, 255},
	{230, 159, 0, 255},
	{86, 180, 233, 255},
	{0, 0, 0, 255},
	{150, 150, 150, 255},
}

func colour(i int) color.RGBA { return colours[i%len(colours)] }

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.Padding = 2 * vg.Millimeter
	p.Legend.Top, p.Legend.Left = true, true
	p.BackgroundColor = color.White // readable on a dark page, too
	p.Add(plotter.NewGrid())
	return p
}

func save(p *plot.Plot, file string) error { return p.Save(18*vg.Centimeter, 10*vg.Centimeter, file) }

// line adds a line with its name.
func line(p *plot.Plot, i int, name string, points plotter.XYs, dots bool) error {
	if len(points) == 0 {
		return nil
	}
	l, s, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	l.Color, l.Width = colour(i), vg.Points(1.5)
	if i >= len(colours) {
		l.Dashes = []vg.Length{vg.Points(4), vg.Points(2)}
	}
	s.Color, s.Radius = colour(i), vg.Points(2)
	p.Add(l)
	if dots {
		p.Add(s)
	}
	p.Legend.Add(name, l)
	return nil
}

// plotThroughput has a bar for each candidate, and a dot for each run.
func plotThroughput(file string, t table[suite.Run]) error {
	p := newPlot("Records a second: medians, and each run", "thousand records a second", "")
	names := slices.Clone(t.names)
	slices.SortFunc(names, func(a, b string) int {
		return int(median(t.rows[a], rate) - median(t.rows[b], rate))
	})
	for i, n := range names {
		bar, err := plotter.NewBarChart(plotter.Values{median(t.rows[n], rate) / 1000}, vg.Points(14))
		if err != nil {
			return err
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, float64(i), 0
		bar.Color = color.RGBA{150, 150, 150, 255}
		if !isPeer(n) {
			bar.Color = colour(0)
		}
		var runs plotter.XYs
		for _, r := range t.rows[n] {
			runs = append(runs, plotter.XY{X: r.Rate() / 1000, Y: float64(i)})
		}
		dots, err := plotter.NewScatter(runs)
		if err != nil {
			return err
		}
		dots.Color, dots.Radius = colour(1), vg.Points(2)
		p.Add(bar, dots)
	}
	p.NominalY(names...)
	p.Y.Tick.Label.Font.Size = vg.Points(10) // long names would be cut off
	p.X.Min = 0
	return save(p, file)
}

// plotMemory has the resident set of each candidate's first run over its time.
// Those that take long make the others small, so time is logarithmic.
func plotMemory(file string, t table[suite.Run]) error {
	p := newPlot("Resident memory while a topic is worked off", "s since the input could be read (logarithmic)", "MiB")
	for i, n := range t.names {
		var points plotter.XYs
		for _, s := range t.rows[n][0].Usage.Samples {
			if s.Ms > 0 {
				points = append(points, plotter.XY{X: float64(s.Ms) / 1000, Y: float64(s.RSS) / (1 << 20)})
			}
		}
		if err := line(p, i, n, points, false); err != nil {
			return err
		}
	}
	p.Y.Min = 0
	p.Y.Max *= 1.6 // room for the legend
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Min = max(p.X.Min, 0.01)
	return save(p, file)
}

// plotLatency spreads the percentiles out towards the tail.
func plotLatency(file string, t table[suite.Latency]) error {
	p := newPlot("Latency beyond the bound", "percentile", "ms (logarithmic)")
	place := func(percentile float64) float64 { return -math.Log10(1 - percentile/100) }
	var ticks plot.ConstantTicks
	for i, n := range t.names {
		var points plotter.XYs
		ticks = nil
		for _, percentile := range suite.Percentiles {
			if percentile == 0 || percentile == 100 {
				continue
			}
			points = append(points, plotter.XY{X: place(percentile), Y: median(t.rows[n], at(percentile))})
			if slices.Contains([]float64{10, 50, 75, 90, 99, 99.9, 99.99}, percentile) {
				ticks = append(ticks, plot.Tick{Value: place(percentile), Label: fmt.Sprint(percentile)})
			}
		}
		if err := line(p, i, fmt.Sprintf("%s (%s)", n, t.rows[n][0].Interval), points, true); err != nil {
			return err
		}
	}
	p.X.Tick.Marker = ticks
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Max *= 20 // room for the legend
	return save(p, file)
}

func plotPartitions(file string, ts []table[suite.Run]) error {
	p := newPlot("Records a second by number of partitions", "partitions (logarithmic)", "thousand records a second")
	points := map[string]plotter.XYs{}
	for _, t := range ts {
		for _, n := range t.names {
			points[n] = append(points[n], plotter.XY{X: float64(t.rows[n][0].Partitions), Y: median(t.rows[n], rate) / 1000})
		}
	}
	for i, n := range ts[0].names {
		if err := line(p, i, n, sorted(points[n]), true); err != nil {
			return err
		}
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min = 0
	p.Y.Max *= 1.3
	return save(p, file)
}

// plotBuffer has the resident memory beside what the target allows.
func plotBuffer(file string, ts []table[suite.Run]) error {
	p := newPlot("Resident memory by bytes held", "MiB held", "MiB resident, at the most")
	var allowed plotter.XYs
	points := map[string]plotter.XYs{}
	for _, t := range ts {
		held := float64(t.rows[t.names[0]][0].Held) / (1 << 20)
		allowed = append(allowed, plotter.XY{X: held, Y: 1.25*held + 48})
		for _, n := range t.names {
			points[n] = append(points[n], plotter.XY{X: held, Y: median(t.rows[n], peak)})
		}
	}
	for i, n := range ts[0].names {
		if err := line(p, i, n, sorted(points[n]), true); err != nil {
			return err
		}
	}
	if err := line(p, len(colours)-1, "target: 1.25 × held + 48 MiB", sorted(allowed), false); err != nil {
		return err
	}
	p.Y.Min = 0
	return save(p, file)
}

func plotCore(file string, names []string, helds []int, rows map[string]map[int][]suite.Core) error {
	p := newPlot("The core: time a record by number held", "records held (logarithmic)", "ns (logarithmic)")
	for i, n := range names {
		var points plotter.XYs
		for _, held := range helds {
			if len(rows[n][held]) > 0 {
				points = append(points, plotter.XY{X: float64(held), Y: median(rows[n][held], nanos)})
			}
		}
		if err := line(p, i, n, points, true); err != nil {
			return err
		}
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Max *= 3
	return save(p, file)
}

func sorted(points plotter.XYs) plotter.XYs {
	slices.SortFunc(points, func(a, b plotter.XY) int { return int(math.Copysign(1, a.X-b.X)) })
	return points
}
