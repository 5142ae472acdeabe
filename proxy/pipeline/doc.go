// Package pipeline is the path of a record, from polled to written:
//
//	record -> event time -> verdict -> held   -> released -> ordered topic
//	                               \-> late ---------------> late topic
//
// Nothing here commits, seeks, suspends a partition or writes. Where that has to happen, a
// Partition returns a Kind of outcome, and the caller calls Continue afterwards. So a commit may
// come in the middle of a release, however long that is.
package pipeline
