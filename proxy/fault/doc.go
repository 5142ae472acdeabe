// Package fault holds what the other packages say about errors: faults that end the
// process, each with an exit code and a hint; the classes of errors; throttled logging and
// counting of those that Tidemark recovers from; and the Kafka command lines that hints
// consist of.
package fault
