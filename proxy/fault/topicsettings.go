package fault

// Topic settings that decide whether an output keeps the records of its source unchanged.
const (
	CleanupPolicy   = "cleanup.policy"
	TimestampType   = "message.timestamp.type"
	MaxMessageBytes = "max.message.bytes"
	SegmentBytes    = "segment.bytes"
	RetentionMs     = "retention.ms"
	RetentionBytes  = "retention.bytes"
	TimestampBefore = "message.timestamp.before.max.ms"
	TimestampAfter  = "message.timestamp.after.max.ms"
	TimestampEither = "message.timestamp.difference.max.ms" // before Kafka 4
	LogAppendTime   = "LogAppendTime"
)
