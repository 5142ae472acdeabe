// Package group is our membership of the consumer group and what brokers say about it: the
// client's callbacks and how they reach the loop (Member), who else is in the group, the
// transactions that dead members left open, committed offsets, where logs end and have
// holes (Watcher), who else writes to our outputs (Rivals), and quotas. It commits nothing
// and writes nothing.
package group
