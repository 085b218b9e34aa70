// Package monitor is the process that stands between the daemon and the containers of a few pods. It clones
// their inits, reaps them, writes their logs, keeps each exit until the daemon has acknowledged it, and ends
// execs that run out of time. The daemon may come and go: a monitor lives until its last pod is gone, or longer as the
// daemon's spare, since starting one takes as long as starting a container.
//
// Only cmd/cri-mini-init imports it. It is one loop over epoll(7) with no other goroutine, and it avoids the
// packages net and os/signal, because each monitor's private memory is paid for once per pods_per_monitor pods.
//
// A monitor may die by SIGKILL at any instruction without harm: the containers' standard streams are FIFOs that
// they hold open for reading too (no SIGPIPE, no end of file), what was read is consumed only after it was
// written to the log (see stream), and the daemon takes the containers over with their pidfds.
//
// Invariant: every process that a monitor spawned is either in its table or has been acknowledged.
package monitor
