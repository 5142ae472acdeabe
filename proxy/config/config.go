// Package config reads Tidemark's configuration from environment variables
// and refuses it, with every fault at once, unless it makes sense as a whole.
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
	// Kafka brokers to ask first, as host:port, comma-separated. They name the
	// other brokers of the cluster.
	Brokers []string `env:"BROKERS" envDefault:"localhost:9092" group:"What to read and who we are"`
	// Source topics, comma-separated. Each is republished in order of event time
	// to a topic of the same name with the ordered suffix.
	Topics []string `env:"TOPICS" unset:"(required)"`
	// Consumer group. With the instance it makes the transactional id,
	// GROUP/INSTANCE.
	Group string `env:"GROUP" envDefault:"tidemark"`
	// Name of this process among those of the group: the same again after a
	// restart, and never used by two at once. Of up to 249 of the characters a-z A-Z
	// 0-9 . _ - since it is also the static member id.
	Instance string `env:"INSTANCE" unset:"the host name"`

	// Where the event time of a record is found: comma-separated sources, of
	// which the first that is present decides. `header:NAME[:FORMAT]` is a header,
	// `json:PATH[:FORMAT]`, `avro:FIELD[:FORMAT]` and `protobuf:FIELD[:FORMAT]` are
	// fields of the value, `timestamp` the record's own timestamp. FORMAT is
	// `unix-ms` (the default; RFC 3339 text is recognised too), `unix-s`,
	// `unix-us`, `unix-ns`, `rfc3339` or `int64-be` (8 bytes, big-endian, ms). A
	// record whose source is present and unusable goes to the late topic. More:
	// [event-time.md](event-time.md).
	EventTime *timestamp.Extractor `env:"EVENT_TIME" envDefault:"header:event-time,timestamp" group:"Event time and order"`
	// How the watermark follows the event times. `bounded`: it stays behind the
	// latest one by a fixed bound. `adaptive`: by a bound that is learned.
	// `window-min`: behind the oldest of the records held within a window.
	// `punctuated`: a header of the records says where it is.
	Watermark Strategy `env:"WATERMARK" envDefault:"bounded"`
	// The bound: how much older than the latest event time seen a record may be
	// and still come out in order. Every record is held back by as much. For
	// `adaptive` it is the most that the bound may be.
	MaxOutOfOrderness time.Duration `env:"MAX_OUT_OF_ORDERNESS" envDefault:"5s"`
	// For `adaptive`: the least that the bound may be.
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
	// How long a partition must bring nothing new before its last records come
	// out by the wall clock. 0: never, they wait for the next record.
	IdleTimeout time.Duration `env:"IDLE_TIMEOUT" envDefault:"5s"`
	// How far ahead of the wall clock an event time may be. A record beyond that
	// goes to the late topic and does not move the watermark. At least a quarter of
	// the bound. 0: any is believed.
	MaxFuture time.Duration `env:"MAX_FUTURE" envDefault:"5m"`
	// After this many late records in a row the source's clock is taken to have
	// been set back, and a new epoch begins there. 0: never.
	ReanchorAfter int `env:"REANCHOR_AFTER" envDefault:"0"`
	// How far ahead of the slowest partition another may be in event time. One
	// that is further ahead is not read until the slowest has come near, so that
	// a consumer of several partitions has less to keep. Needs an idle timeout. 0: any
	// distance.
	MaxDrift time.Duration `env:"MAX_DRIFT" envDefault:"0"`
	// Header that tells producers apart, like `device-id`. A warning is logged
	// when the clock of one of them is off by more than the bound or a quarter of
	// the skew that is let pass, whichever is less. Not set: no warning.
	ClockHeader string `env:"CLOCK_HEADER"`

	// By what a repeat of a record is known: `header:NAME`, its last header of that
	// name; `key`; `bytes`, key, value and headers alike; or `off`. Among records of
	// one partition and event time that have the same, the first comes out in order.
	Dedup Dedup `env:"DEDUP" envDefault:"off" group:"Duplicates"`
	// What becomes of the others: `late`, to the late topic as `duplicate`, or
	// `drop`, to no output; they are counted.
	Duplicates Duplicates `env:"DUPLICATES" envDefault:"late"`
	// How many records that came out in order are remembered, all partitions
	// together, so that a repeat behind the watermark goes to the late topic as
	// `duplicate` too. Each takes about 200 bytes. A restart forgets them. 0: none.
	DedupRemember int `env:"DEDUP_REMEMBER" envDefault:"100000"`

	// `exactly-once`: outputs and offsets in one transaction. `at-least-once`:
	// less latency, and repeated records after a crash.
	Delivery Delivery `env:"DELIVERY" envDefault:"exactly-once" group:"Delivery"`
	// How often what was released is committed. Readers of committed data see it
	// no sooner. Less than half the transaction timeout.
	CommitInterval time.Duration `env:"COMMIT_INTERVAL" envDefault:"100ms"`
	// How batches of the outputs are compressed: `source`, as the source's are;
	// or `none`, `gzip`, `snappy`, `lz4`, `zstd`.
	Compression Compression `env:"COMPRESSION" envDefault:"source"`
	// How long the group waits for a member that went silent before another
	// takes its partitions. From 6s to 30m, which is what brokers accept unless
	// told otherwise (group.min.session.timeout.ms, group.max.session.timeout.ms).
	SessionTimeout time.Duration `env:"SESSION_TIMEOUT" envDefault:"30s"`
	// When the broker aborts a transaction that nobody ends. From 1s to 15m, the
	// most that brokers accept unless told otherwise (transaction.max.timeout.ms).
	TransactionTimeout time.Duration `env:"TRANSACTION_TIMEOUT" envDefault:"10s"`
	// Where to begin in a topic for which the group has no offset: `earliest`,
	// `latest`, a time (RFC 3339, or ms since 1970: the first record whose timestamp
	// is not before it), or `group:NAME` for the offsets of another group.
	Start Start `env:"START" envDefault:"earliest"`
	// When the group's offsets are gone or were reset while an output has records:
	// `fail` stops, `new-epoch` begins anew and marks what follows as a new epoch.
	OnReset OnReset `env:"ON_RESET" envDefault:"fail"`
	// When records that were still owed are gone from the source topic: `fail`
	// stops, `continue` logs how many and goes on behind the gap.
	OnDataLoss OnDataLoss `env:"ON_DATA_LOSS" envDefault:"fail"`
	// Most bytes of records to hold, all partitions together, like 256MiB. When
	// they are reached, the oldest come out early.
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
	// PEM file with the certificate to speak TLS with there. Read again for every
	// connection; so is the key. Not set: no TLS.
	AdminTLSCertFile string `env:"ADMIN_TLS_CERT_FILE"`
	// PEM file with the key of that certificate.
	AdminTLSKeyFile string `env:"ADMIN_TLS_KEY_FILE"`
	// User name that is asked for there (HTTP basic authentication), except for
	// `/livez` and `/readyz`. Not set: nobody is asked.
	AdminUsername string `env:"ADMIN_USERNAME"`
	// Password that belongs to it.
	AdminPassword Secret `env:"ADMIN_PASSWORD"`
	// File with that password. A newline at its end does not count.
	AdminPasswordFile string `env:"ADMIN_PASSWORD_FILE"`

	// Least important message to log: `debug`, `info`, `warn` or `error`.
	LogLevel LogLevel `env:"LOG_LEVEL" envDefault:"info" group:"Logs"`
	// `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.
	LogFormat LogFormat `env:"LOG_FORMAT" envDefault:"auto"`

	// Whether to speak TLS (1.2 or newer) with the brokers. Their certificates are
	// always verified.
	TLS bool `env:"TLS" envDefault:"false" group:"TLS and SASL"`
	// PEM file with the authorities that may vouch for the brokers, in place of
	// the system's. This file and the two below may be renewed without a restart: the
	// next connection heeds a change.
	TLSCAFile string `env:"TLS_CA_FILE"`
	// PEM file with the client's certificate, and those between it and its authority.
	TLSCertFile string `env:"TLS_CERT_FILE"`
	// PEM file with the key of the client's certificate.
	TLSKeyFile string `env:"TLS_KEY_FILE"`
	// Name that the brokers' certificates must carry, if it is not the one that
	// they are addressed by.
	TLSServerName string `env:"TLS_SERVER_NAME"`
	// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER` or `AWS_MSK_IAM`, which
	// takes its credentials from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
	// `AWS_SESSION_TOKEN`. Not set: no SASL. More: [security.md](security.md).
	SASLMechanism SASLMechanism `env:"SASL_MECHANISM"`
	// User name, for `PLAIN` and `SCRAM`.
	SASLUsername string `env:"SASL_USERNAME"`
	// Password, for `PLAIN` and `SCRAM`. Better given as a file, for other processes may
	// see this one's environment.
	SASLPassword Secret `env:"SASL_PASSWORD"`
	// File with the password. A newline at its end does not count. It may be renewed
	// without a restart: the next login heeds a change.
	SASLPasswordFile string `env:"SASL_PASSWORD_FILE"`
	// For `OAUTHBEARER`: file with a token. It may be renewed without a restart: the next
	// login heeds a change. A newline at its end does not count.
	SASLTokenFile string `env:"SASL_TOKEN_FILE"`
	// For `OAUTHBEARER`, in place of a file: https URL at which an authorization server
	// gives out tokens (OAuth 2, client credentials grant).
	SASLTokenURL string `env:"SASL_TOKEN_URL"`
	// PEM file with the authorities that may vouch for that server, in place of the
	// system's.
	SASLTokenCAFile string `env:"SASL_TOKEN_CA_FILE"`
	// Client id to ask that server with.
	SASLClientID string `env:"SASL_CLIENT_ID"`
	// Client secret to ask that server with.
	SASLClientSecret Secret `env:"SASL_CLIENT_SECRET"`
	// File with the client secret. A newline at its end does not count. It may be
	// renewed without a restart.
	SASLClientSecretFile string `env:"SASL_CLIENT_SECRET_FILE"`
	// Scopes to ask that server for, comma-separated.
	SASLScopes []string `env:"SASL_SCOPES"`
	// For `OAUTHBEARER`: what the brokers want to know besides the token, as
	// KEY=VALUE, comma-separated.
	SASLExtensions []string `env:"SASL_EXTENSIONS"`

	// URLs of the schema registry for `avro` and `protobuf` event times,
	// comma-separated. If one does not answer, the next is asked. While none does,
	// records whose schema is not known yet wait.
	SchemaRegistry []string `env:"SCHEMA_REGISTRY" group:"Schema registry"`
	// User name for the schema registry.
	SchemaRegistryUsername string `env:"SCHEMA_REGISTRY_USERNAME"`
	// Password for the schema registry.
	SchemaRegistryPassword Secret `env:"SCHEMA_REGISTRY_PASSWORD"`
	// File with the password for the schema registry. A newline at its end does not
	// count. It may be renewed without a restart.
	SchemaRegistryPasswordFile string `env:"SCHEMA_REGISTRY_PASSWORD_FILE"`
	// Bearer token for the schema registry, in place of user name and password.
	SchemaRegistryToken Secret `env:"SCHEMA_REGISTRY_TOKEN"`
	// File with the token for the schema registry. A newline at its end does not
	// count. It may be renewed without a restart.
	SchemaRegistryTokenFile string `env:"SCHEMA_REGISTRY_TOKEN_FILE"`
	// PEM file with the authorities that may vouch for the schema registry, in place
	// of the system's.
	SchemaRegistryTLSCAFile string `env:"SCHEMA_REGISTRY_TLS_CA_FILE"`
	// PEM file with the client's certificate for the schema registry. The next
	// connection heeds a change of this file, its key or the authorities.
	SchemaRegistryTLSCertFile string `env:"SCHEMA_REGISTRY_TLS_CERT_FILE"`
	// PEM file with the key of that certificate.
	SchemaRegistryTLSKeyFile string `env:"SCHEMA_REGISTRY_TLS_KEY_FILE"`
	// Name that the schema registry's certificate must carry, if it is not the one in
	// its URL.
	SchemaRegistryTLSServerName string `env:"SCHEMA_REGISTRY_TLS_SERVER_NAME"`

	// aws is what AWS's own variables say.
	aws awsCredentials
	// origins says of every variable that was not set where its value came from.
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
