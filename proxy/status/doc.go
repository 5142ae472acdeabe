// Package status shows a running Tidemark to the outside: the status value and its
// publisher, the ledger of what became of every record, histograms, and probes of the
// brokers. It reads state and owns none of it.
package status
