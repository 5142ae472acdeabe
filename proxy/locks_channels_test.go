//go:build synctests

package proxy

// channelLocks: the client's locks are channels, which a bubble understands.
const channelLocks = true
