// Package api drives a running daemon over its socket and holds it to what CRI says and to what this project decided
// where CRI is silent: bad input with the error that a user reads, repeated and concurrent requests, execs, logs,
// limits, stats. It has tests only, which share one machine (test/private) and one daemon.
//
// Invariant: after every test the machine is as it was before: no process, mount, cgroup, link, rule or file is left.
package api
