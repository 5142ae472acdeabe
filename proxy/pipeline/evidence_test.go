package pipeline

import (
	"testing"
	"time"

	"github.com/tidemarkhq/tidemark/watermark"
)

// TestFewProducersAreTold: where all clocks are off, some producers a minute are named.
func TestFewProducersAreTold(t *testing.T) {
	var reports producerReports
	lines := 0
	for range 100 {
		if suppressed, ok := reports.may(0); ok {
			lines++
			if suppressed != 0 {
				t.Errorf("%d were left out before the first", suppressed)
			}
		}
	}
	suppressed, ok := reports.may(watermark.Instant(time.Minute))
	if lines != mostReports || !ok || suppressed != 100-mostReports {
		t.Errorf("%d of 100 were told, and then %v with %d left out", lines, ok, suppressed)
	}
}
