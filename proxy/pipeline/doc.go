// Package pipeline is the path of a record, from what was polled to what is written:
//
//	record -> event time -> verdict -> held   -> released -> ordered topic
//	                               \-> late ---------------> late topic
//
// Nothing here commits, seeks, suspends a partition or writes. Where that has to happen, a
// Partition returns an Outcome and is called again afterwards (Continue), so a commit may
// come inside a release as long as memory.
package pipeline
