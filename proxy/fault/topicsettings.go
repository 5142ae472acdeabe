package fault

// Settings of topics that decide whether a copy is as good as the original.
const (
	CleanupPolicy   = "cleanup.policy"
	TimestampType   = "message.timestamp.type"
	MaxMessageBytes = "max.message.bytes"
	RetentionMs     = "retention.ms"
	RetentionBytes  = "retention.bytes"
	TimestampBefore = "message.timestamp.before.max.ms"
	TimestampAfter  = "message.timestamp.after.max.ms"
	TimestampEither = "message.timestamp.difference.max.ms" // before Kafka 4
	LogAppendTime   = "LogAppendTime"
)
