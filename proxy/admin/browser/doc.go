// Package browser has no code: its tests look at the status page with Chromium.
package browser
