package fault

// LogKey is a key of log lines. One key means the same in every line.
type LogKey struct{ Name, Unit, Meaning string }

// LogKeys are all keys of log lines, but for those of the Kafka client's own lines.
var LogKeys = []LogKey{
	{"time", "RFC 3339", "when the line was written"},
	{"level", "word", "`DEBUG`, `INFO`, `WARN` or `ERROR`"},
	{"msg", "text", "what happened; the same text for the same event"},
	{"err", "text", "the underlying error"},
	{"hint", "text", "how to fix it, often a command"},
	{"class", "word", "of the error: `broker`, `network` or `record`"},
	{"suppressed", "lines", "like this one, left out since the last"},

	{"instance", "name", "`TIDEMARK_INSTANCE`"},
	{"group", "name", "the consumer group"},
	{"request", "word", "`produce`, `fetch` or `other`: what a quota holds back"},
	{"throttle", "duration", "how long brokers asked us to pause"},
	{"session_timeout", "duration", "`TIDEMARK_SESSION_TIMEOUT`"},
	{"transaction_timeout", "duration", "`TIDEMARK_TRANSACTION_TIMEOUT`"},
	{"cluster_id", "name", "the id of the Kafka cluster"},
	{"members", "list", "client ids of group members, with their hosts"},
	{"brokers", "list", "`TIDEMARK_BROKERS`"},
	{"broker", "host:port", "that the line is about"},
	{"topics", "list", "the source topics"},
	{"delivery", "word", "`TIDEMARK_DELIVERY`"},
	{"watermark", "word", "`TIDEMARK_WATERMARK`, the strategy"},
	{"max_out_of_orderness", "duration", "`TIDEMARK_MAX_OUT_OF_ORDERNESS`"},
	{"start", "text", "`TIDEMARK_START`"},
	{"memory", "bytes, with unit", "the budget for held records"},
	{"transactional_id", "name", "of the transaction"},
	{"producer_id", "number", "that brokers gave the producer"},
	{"since", "RFC 3339", "when the transaction began"},
	{"first_offset", "offset", "of the open transaction: readers of committed records wait there"},
	{"behind", "offsets", "that readers do not see until the transaction ends"},

	{"waiting_for", "text", "what the brokers have not answered yet"},
	{"waited", "duration", "for how long so far"},

	{"topic", "name", "that the line is about; several are separated by commas"},
	{"partition", "number", "that the line is about"},
	{"partitions", "list", "that the line is about, by topic"},
	{"missing_partitions", "partitions", "that the outputs lack"},
	{"most_partitions", "partitions", "how many are committed at once from now on"},
	{"offset", "offset", "of the record, in the source"},
	{"source_offset", "offset", "the same, where the topic is an output"},
	{"committed_offset", "offset", "of the group: the oldest record not yet in an output"},
	{"next_offset", "offset", "that is read next"},
	{"end_offset", "offset", "at which the partition's log ends"},
	{"epoch", "number", "the epoch from now on"},
	{"records", "records", "how many"},
	{"buffered", "records", "how many are held"},
	{"offsets_to_read_again", "offsets", "between the committed and the next one, all partitions together"},
	{"first_start", "true or false", "whether the group had no offset for the partition"},
	{"begins", "list", "partitions for which the group had no offset, each with the offset at which it begins"},
	{"first_starts", "partitions", "for which the group had no offset"},
	{"schema", "text", "the id of the schema, or its GUID"},
	{"steps", "steps", "in which headers were left out, see operations.md"},

	{"paused", "list", "the partitions that wait"},
	{"slowest_topic", "name", "of the partition that they wait for"},
	{"slowest_partition", "number", "that they wait for"},
	{"slowest_watermark_ms", "ms since 1970", "the watermark of that partition"},

	{"header", "name", "`TIDEMARK_CLOCK_HEADER`"},
	{"producer", "text", "the value of that header"},
	{"finding", "word", "what is wrong with its clock: `clock-ahead` or `clock-behind`"},
	{"off_by", "duration", "by how much"},

	{"reasons", "list", "which late records are corrected"},
	{"ttl", "duration", "for how long they are corrected"},
	{"every", "duration", "from one run to the next; 0s: one run"},
	{"dry_run", "true or false", "whether nothing is written"},

	{"client_level", "word", "level of the Kafka client's own line"},
}
