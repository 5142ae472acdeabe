// Package config reads Tidemark's configuration from environment variables
// and validates it as a whole, reporting every fault at once.
package config

import (
	"strings"
	"time"

	"github.com/tidemarkhq/tidemark/emit/window"
	"github.com/tidemarkhq/tidemark/proxy/timestamp"
)

// Prefix is what the names of all variables begin with.
const Prefix = "TIDEMARK_"

// Config is the whole configuration, as Load returns it: complete, valid, and
// with defaults filled in. The comments below are the manual: the reference
// that Docs returns is made of them.
type Config struct {
	// Kafka brokers to connect to first, as host:port, comma-separated. They name the
	// other brokers of the cluster.
	Brokers []string `env:"BROKERS" envDefault:"localhost:9092" group:"What to read and who we are"`
	// Source topics, comma-separated. Each is republished in order of event time
	// to a topic of the same name with the ordered suffix.
	Topics []string `env:"TOPICS" unset:"(required)"`
	// Consumer group. With the instance it forms the transactional id,
	// GROUP/INSTANCE.
	Group string `env:"GROUP" envDefault:"tidemark"`
	// Name of this process within the group: the same after a restart, and never used
	// by two at once. Up to 249 of the characters a-z A-Z 0-9 . _ - because it is also
	// the static member id.
	Instance string `env:"INSTANCE" unset:"the host name"`

	// Where to find the event time of a record: comma-separated sources, of
	// which the first that is present decides. `header:NAME[:FORMAT]` is a header,
	// `json:PATH[:FORMAT]`, `avro:FIELD[:FORMAT]` and `protobuf:FIELD[:FORMAT]` are
	// fields of the value, `timestamp` the record's own timestamp, `previous` (the
	// last) the event time of the record before, for tombstones. FORMAT is
	// `unix-ms` (the default; RFC 3339 text is recognised too), `unix-s`,
	// `unix-us`, `unix-ns`, `rfc3339`, `local:ZONE` (text without a zone, like
	// `local:Europe/Paris`) or `int64-be` (8 bytes, big-endian, ms). A
	// record whose source is present but unusable goes to the late topic. More:
	// [event-time.md](event-time.md).
	EventTime *timestamp.Extractor `env:"EVENT_TIME" envDefault:"header:event-time,timestamp" group:"Event time and order"`
	// How the watermark follows the event times. `bounded`: it stays behind the
	// latest one by a fixed bound. `adaptive`: by a bound that is learned.
	// `window-min`: behind the oldest of the records held within a window.
	// `punctuated`: a header of the records says where it is.
	Watermark Strategy `env:"WATERMARK" envDefault:"bounded"`
	// The bound: how much older than the latest event time seen a record may be
	// and still be released in order. Every record is held back by as much. For
	// `adaptive` it is the upper limit of the bound.
	MaxOutOfOrderness time.Duration `env:"MAX_OUT_OF_ORDERNESS" envDefault:"5s"`
	// For `adaptive`: the lower limit of the bound.
	MinOutOfOrderness time.Duration `env:"MIN_OUT_OF_ORDERNESS" envDefault:"0s"`
	// For `adaptive`: which share of the records may be late. From 0.000001 to 0.5.
	TargetLate Share `env:"TARGET_LATE" envDefault:"0.0001"`
	// For `window-min`: how far the window reaches back from the latest event time.
	WatermarkWindow time.Duration `env:"WATERMARK_WINDOW" envDefault:"5s"`
	// For `window-min`: how much older than the oldest record in the window a
	// record may be.
	WatermarkLateness time.Duration `env:"WATERMARK_LATENESS" envDefault:"1s"`
	// For `punctuated`: the header that carries the watermark, as NAME[:FORMAT], the
	// formats being those of event times. A record without it moves nothing.
	WatermarkHeader timestamp.Header `env:"WATERMARK_HEADER" envDefault:"watermark"`
	// How long a partition must bring nothing new before its last records are
	// released by the wall clock. 0: never, they wait for the next record.
	IdleTimeout time.Duration `env:"IDLE_TIMEOUT" envDefault:"5s"`
	// How far ahead of the wall clock an event time may be. A record beyond that
	// goes to the late topic and does not move the watermark. One clock that is ahead
	// takes as much of the bound from all other records, so half of the bound is left for
	// their delays by default. At least a quarter of the bound. 0: no limit.
	MaxFuture time.Duration `env:"MAX_FUTURE" unset:"half of the bound (window-min: of window and lateness), at least 1s; punctuated: 5m"`
	// After this many late records in a row, Tidemark assumes that the source's clock
	// was set back, and begins a new epoch there. 0: never.
	ReanchorAfter int `env:"REANCHOR_AFTER" envDefault:"0"`
	// How far ahead of the slowest partition another may be in event time. One that is
	// further ahead is not read until the slowest has caught up, so that a consumer of
	// several partitions has less to keep. Needs an idle timeout. 0: no limit.
	MaxDrift time.Duration `env:"MAX_DRIFT" envDefault:"0"`
	// Header that tells producers apart, like `device-id`. A warning is logged when the
	// clock of one of them is off by more than half of the bound or
	// `TIDEMARK_MAX_FUTURE`, whichever is less, and by more than 1s. Not set: no warning.
	ClockHeader string `env:"CLOCK_HEADER"`

	// How to recognise a repeat of a record: by `header:NAME`, its last header of that
	// name; by `key`; by `bytes`, that is key, value and headers; or `off`. Among records
	// of one partition and event time that have the same, the first is released in order.
	Dedup Dedup `env:"DEDUP" envDefault:"off" group:"Duplicates"`
	// What becomes of the others: `late`, to the late topic as `duplicate`, or
	// `drop`, to no output; they are counted.
	Duplicates Duplicates `env:"DUPLICATES" envDefault:"late"`
	// How many released records to remember, all partitions together, so that a repeat
	// behind the watermark goes to the late topic as `duplicate` too. Each takes about
	// 200 bytes. A restart forgets them. 0: none.
	DedupRemember int `env:"DEDUP_REMEMBER" envDefault:"100000"`

	// `exactly-once`: outputs and offsets in one transaction. `at-least-once`:
	// less latency, and repeated records after a crash.
	Delivery Delivery `env:"DELIVERY" envDefault:"exactly-once" group:"Delivery"`
	// How often released records are committed. Readers of committed data see them no
	// sooner. Less than half the transaction timeout.
	CommitInterval time.Duration `env:"COMMIT_INTERVAL" envDefault:"100ms"`
	// How batches of the outputs are compressed: `none`, `gzip`, `snappy`, `lz4`, `zstd`;
	// or `source`, with the codec of the batch that was read last. That is one for all
	// topics: where they have different codecs, name one. A batch that compression does
	// not make smaller stays as it is.
	Compression Compression `env:"COMPRESSION" envDefault:"source"`
	// How long the group waits for a member that went silent before another
	// takes its partitions. From 6s to 30m, which is what brokers accept by default
	// (group.min.session.timeout.ms, group.max.session.timeout.ms).
	SessionTimeout time.Duration `env:"SESSION_TIMEOUT" envDefault:"30s"`
	// When the broker aborts a transaction that nobody ends. From 1s to 15m, the
	// most that brokers accept by default (transaction.max.timeout.ms).
	TransactionTimeout time.Duration `env:"TRANSACTION_TIMEOUT" envDefault:"10s"`
	// Where to begin in a topic for which the group has no offset: `earliest`,
	// `latest`, a time (like `2025-11-21T04:40Z`, or ms since 1970: the first record
	// whose timestamp is not before it), or `group:NAME` for the offsets of another group.
	// Once the group has offsets it has no effect, and the log says so.
	Start Start `env:"START" envDefault:"earliest"`
	// When the group's offsets are gone or were reset while an output has records:
	// `fail` stops, so that `tidemark position rebuild` can make the position again from the
	// outputs; `new-epoch` begins anew, puts out again what the outputs hold from there on,
	// and marks what follows as a new epoch.
	OnReset OnReset `env:"ON_RESET" envDefault:"fail"`
	// When records that were still owed are gone from the source topic: `fail`
	// stops, `continue` logs how many and continues behind the gap.
	OnDataLoss OnDataLoss `env:"ON_DATA_LOSS" envDefault:"fail"`
	// Maximum size of all held records, all partitions together, like 256MiB. When
	// this is reached, the oldest are released early.
	Memory ByteSize `env:"MEMORY" unset:"half of the container's memory limit, or of the system's memory up to 1GiB"`

	// What is appended to a topic's name for its records in order.
	OrderedSuffix string `env:"ORDERED_SUFFIX" envDefault:".ordered" group:"Outputs"`
	// What is appended to a topic's name for its records that came too late.
	LateSuffix string `env:"LATE_SUFFIX" envDefault:".late"`
	// Headers to add to records in order, comma-separated: `watermark`,
	// `source-offset`, `event-time`, or `none`.
	Headers HeaderSet `env:"HEADERS" envDefault:"watermark,source-offset"`
	// Windows of event time to name in headers of the records that are in them,
	// comma-separated: `tumbling:SIZE`, `hopping:SIZE/SLIDE`, `sliding:SIZE`, like
	// `tumbling:1m,hopping:5m/1m`. The first two may be shifted and follow the wall
	// clock of a time zone: `tumbling:1d+6h@Europe/Berlin`. See docs/windows.md.
	// Not set: none.
	Windows window.Set `env:"WINDOWS"`
	// What the names of all added headers begin with.
	HeaderPrefix string `env:"HEADER_PREFIX" envDefault:"tidemark-"`

	// Where health, status and metrics are served: `host:port`, with the host left out
	// for all addresses, or `off`. See [operations.md](operations.md).
	Admin AdminAddress `env:"ADMIN" envDefault:":9840" group:"Admin port"`
	// PEM file with the TLS certificate of the admin port. It may be renewed without a
	// restart, and so may the key. Not set: no TLS.
	AdminTLSCertFile string `env:"ADMIN_TLS_CERT_FILE"`
	// PEM file with the key of that certificate.
	AdminTLSKeyFile string `env:"ADMIN_TLS_KEY_FILE"`
	// User name that the admin port requires (HTTP basic authentication), except for
	// `/livez` and `/readyz`. Not set: no login.
	AdminUsername string `env:"ADMIN_USERNAME"`
	// Password that belongs to it.
	AdminPassword Secret `env:"ADMIN_PASSWORD"`
	// File with that password. A newline at its end is ignored.
	AdminPasswordFile string `env:"ADMIN_PASSWORD_FILE"`
	// Which share of the records may be late before the [state](operations.md#health-status-metrics)
	// is `DEGRADED`, by partition and over the last minute in which it had records.
	// Duplicates do not count. From 0 to 1; 0: never.
	LateLimit LateLimit `env:"LATE_LIMIT" envDefault:"0.05"`

	// Least important message to log: `debug`, `info`, `warn` or `error`.
	LogLevel LogLevel `env:"LOG_LEVEL" envDefault:"info" group:"Logs"`
	// `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.
	LogFormat LogFormat `env:"LOG_FORMAT" envDefault:"auto"`

	// Whether to speak TLS (1.2 or newer) with the brokers. Their certificates are
	// always verified.
	TLS bool `env:"TLS" envDefault:"false" group:"TLS and SASL"`
	// PEM file with the authorities that sign the brokers' certificates, in place of
	// the system's. This file and the two below may be renewed without a restart: the
	// next connection uses the new ones.
	TLSCAFile string `env:"TLS_CA_FILE"`
	// PEM file with the client's certificate and its intermediate certificates.
	TLSCertFile string `env:"TLS_CERT_FILE"`
	// PEM file with the key of the client's certificate.
	TLSKeyFile string `env:"TLS_KEY_FILE"`
	// Name that the brokers' certificates must carry, if it is not their address.
	TLSServerName string `env:"TLS_SERVER_NAME"`
	// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER` or `AWS_MSK_IAM`, which
	// takes its credentials from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
	// `AWS_SESSION_TOKEN`. Not set: no SASL. More: [security.md](security.md).
	SASLMechanism SASLMechanism `env:"SASL_MECHANISM"`
	// User name, for `PLAIN` and `SCRAM`.
	SASLUsername string `env:"SASL_USERNAME"`
	// Password, for `PLAIN` and `SCRAM`. A file is safer, because other processes may see
	// this one's environment.
	SASLPassword Secret `env:"SASL_PASSWORD"`
	// File with the password. A newline at its end is ignored. It may be renewed without
	// a restart: the next login uses the new one.
	SASLPasswordFile string `env:"SASL_PASSWORD_FILE"`
	// For `OAUTHBEARER`: file with a token. It may be renewed without a restart: the next
	// login uses the new one. A newline at its end is ignored.
	SASLTokenFile string `env:"SASL_TOKEN_FILE"`
	// For `OAUTHBEARER`, in place of a file: https URL of an authorization server's token
	// endpoint (OAuth 2, client credentials grant).
	SASLTokenURL string `env:"SASL_TOKEN_URL"`
	// PEM file with the authorities that sign that server's certificate, in place of the
	// system's.
	SASLTokenCAFile string `env:"SASL_TOKEN_CA_FILE"`
	// Client id for that server.
	SASLClientID string `env:"SASL_CLIENT_ID"`
	// Client secret for that server.
	SASLClientSecret Secret `env:"SASL_CLIENT_SECRET"`
	// File with the client secret. A newline at its end is ignored. It may be renewed
	// without a restart.
	SASLClientSecretFile string `env:"SASL_CLIENT_SECRET_FILE"`
	// Scopes to request from that server, comma-separated.
	SASLScopes []string `env:"SASL_SCOPES"`
	// For `OAUTHBEARER`: SASL extensions to send with the token, as KEY=VALUE,
	// comma-separated.
	SASLExtensions []string `env:"SASL_EXTENSIONS"`

	// URLs of the schema registry for `avro` and `protobuf` event times,
	// comma-separated. If one does not answer, the next is asked. While none does,
	// records whose schema is not known yet wait. Apicurio's are told by their path:
	// `/apis/registry/v2` for global ids, `/apis/registry/v3` for ids of contents,
	// `/apis/ccompat/v7` for Confluent's protocol.
	SchemaRegistry []string `env:"SCHEMA_REGISTRY" group:"Schema registry"`
	// User name for the schema registry.
	SchemaRegistryUsername string `env:"SCHEMA_REGISTRY_USERNAME"`
	// Password for the schema registry.
	SchemaRegistryPassword Secret `env:"SCHEMA_REGISTRY_PASSWORD"`
	// File with the password for the schema registry. A newline at its end is ignored. It
	// may be renewed without a restart.
	SchemaRegistryPasswordFile string `env:"SCHEMA_REGISTRY_PASSWORD_FILE"`
	// Bearer token for the schema registry, in place of user name and password.
	SchemaRegistryToken Secret `env:"SCHEMA_REGISTRY_TOKEN"`
	// File with the token for the schema registry. A newline at its end is ignored. It may
	// be renewed without a restart.
	SchemaRegistryTokenFile string `env:"SCHEMA_REGISTRY_TOKEN_FILE"`
	// PEM file with the authorities that sign the schema registry's certificate, in place
	// of the system's.
	SchemaRegistryTLSCAFile string `env:"SCHEMA_REGISTRY_TLS_CA_FILE"`
	// PEM file with the client's certificate for the schema registry. This file, its key
	// and the authorities may be renewed without a restart.
	SchemaRegistryTLSCertFile string `env:"SCHEMA_REGISTRY_TLS_CERT_FILE"`
	// PEM file with the key of that certificate.
	SchemaRegistryTLSKeyFile string `env:"SCHEMA_REGISTRY_TLS_KEY_FILE"`
	// Name that the schema registry's certificate must carry, if it is not the one in
	// its URL.
	SchemaRegistryTLSServerName string `env:"SCHEMA_REGISTRY_TLS_SERVER_NAME"`

	// aws is read from AWS's own variables.
	aws awsCredentials
	// origins says where the value of each variable that was not set came from.
	origins map[string]string
}

// OrderedTopic returns the topic that gets the records of topic in order.
func (c Config) OrderedTopic(topic string) string { return topic + c.OrderedSuffix }

// LateTopic returns the topic that gets the records of topic that came too late.
func (c Config) LateTopic(topic string) string { return topic + c.LateSuffix }

// TransactionalID returns the transactional id of this process.
func (c Config) TransactionalID() string { return c.Group + transactionalSlash + c.Instance }

// transactionalSlash is between group and instance. A group may have slashes of its
// own, an instance has none (see illegal), so the last slash of an id is this one and
// no two pairs of group and instance share an id.
const transactionalSlash = "/"

// SplitTransactionalID takes apart what TransactionalID makes. An id that cannot be
// one of those is not ok.
func SplitTransactionalID(id string) (group, instance string, ok bool) {
	at := strings.LastIndex(id, transactionalSlash)
	if at < 0 || illegal(id[at+1:]) != "" {
		return "", "", false
	}
	return id[:at], id[at+1:], true
}
