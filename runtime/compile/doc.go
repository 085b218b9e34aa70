// Package compile turns an OCI runtime spec into a plan: the one place that knows in which order the kernel wants
// things. It is pure: no root, no system call, no clock; the same spec and options give the same plan.
//
// runtime/engine's callers import it (sandbox, the commands); it imports runtime/plan and runtime/host.
//
// Invariant: a plan that it returns passes plan.Check, and its last init op is an exec, a pause or an exit.
package compile
