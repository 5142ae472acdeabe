// Package status holds what can be seen of a running Tidemark from outside: the status
// value and who publishes it, the ledger of what became of every record, histograms, and
// the probes of the brokers. It reads state and owns none of it.
package status
