// Package txn writes output records and commits offsets, exactly once in transactions or
// at least once without. It handles records that brokers refuse, as far as a commit or an
// abort is enough; if a source partition has to be suspended, it returns that to the caller.
// It never reads from the source, and knows the consumer group only by name.
//
//	Write ... Write    into batches, which the client sends while the next one fills
//	Commit             waits for acknowledgements, then ends the transaction with offsets:
//	                   Committed, Moved or Aborted
package txn
