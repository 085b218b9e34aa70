// Package linux owns the few kernel calls that need more than x/sys/unix gives:
// the exit status behind a pidfd, pages shared with a process that has not yet
// executed, sealed copies of our own binary, ambient capabilities. Every other
// package may import it; it imports nothing of this module.
//
// Invariant: this is the only package of the module that imports unsafe.
package linux
