// Package recovery finds out from where partitions go on: from the snapshot in the metadata
// of their commit, or, where there is none, from where they begin and in which epoch. It
// returns values, and neither installs nor commits nor logs anything.
package recovery
