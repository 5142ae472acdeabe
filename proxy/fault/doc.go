// Package fault classifies and reports errors: faults that end the process, each with an
// exit code and a hint; classes of errors; throttled logging and counting of errors that
// Tidemark recovers from; and the Kafka command lines used in hints.
package fault
