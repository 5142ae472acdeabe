// Package preflight checks everything that a run or a repair needs of the cluster before it
// joins the group: brokers, permissions, topics and their settings. It creates and grows
// output topics, and reports all faults together, each with the command that fixes it.
package preflight
