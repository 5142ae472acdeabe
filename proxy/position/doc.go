// Package position shows, saves and makes the positions of a group: the offsets that it has
// committed together with the metadata that Kafka's own tools cannot write. It changes them
// only while the group has no members, and only by a plan that somebody has seen.
package position
