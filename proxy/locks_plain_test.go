//go:build !synctests

package proxy

const channelLocks = false
