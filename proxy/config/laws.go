package config

import "github.com/tidemarkhq/tidemark/reorder"

// Laws returns what decides about the records of a partition.
func (c *Config) Laws() reorder.Options {
	laws := reorder.Options{
		Strategy: c.Watermark.Law(),
		Bound:    c.MaxOutOfOrderness, Floor: c.MinOutOfOrderness, TargetLate: int(c.TargetLate),
		Window: c.WatermarkWindow, Lateness: c.WatermarkLateness,
		IdleTimeout: c.IdleTimeout, MaxFuture: c.MaxFuture, ReanchorAfter: c.ReanchorAfter,
		Previous: c.EventTime.UsesPrevious(),
	}
	if c.Dedup.On() {
		laws.Identity = c.Dedup.Identity
	}
	return laws
}
