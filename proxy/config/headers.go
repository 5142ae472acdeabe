package config

import "github.com/tidemarkhq/tidemark/emit"

// OutputHeaders returns which headers output records get.
func (c *Config) OutputHeaders() emit.Headers {
	return emit.Headers{
		Prefix: c.HeaderPrefix, Watermark: c.Headers.Watermark,
		SourceOffset: c.Headers.SourceOffset, EventTime: c.Headers.EventTime, Windows: c.Windows,
	}
}
