// Package txn writes output records and commits offsets, exactly once in transactions or
// at least once without. It decides what becomes of records that brokers refuse, as far as
// a commit or an abort is enough; what else has to happen to a source partition, it says to
// the caller. It never reads from the source, and knows no consumer group but by name.
//
//	Write ... Write    into batches, which the client sends while the next one fills
//	Commit             waits for the acknowledgements, and ends what is open with offsets:
//	                   Committed, Moved or Aborted
package txn
