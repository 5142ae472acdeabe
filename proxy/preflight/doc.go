// Package preflight looks at everything that a run or a repair needs of the cluster before
// it joins the group: brokers, rights, topics and their settings. It creates output topics
// and lets them grow, and reports all faults together, each with the command that mends it.
package preflight
