// Package daemon is what tests need to drive cri-mini as kubelet does: a machine of their own (test/private), the
// programs built as the Makefile builds them, an image made from the packaged static busybox, a daemon with its gRPC
// clients, and a list of all that is on the machine and that a runtime could have made.
//
// Only tests import it. Invariant: what Look lists comes from the kernel and the file system, never from the daemon.
package daemon
