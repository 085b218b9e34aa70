// Package initc owns the interpreter of plans: init.c, which becomes the container's or the exec's process.
//
// Importing the package links a constructor into the program. When its first argument is "init" the
// constructor interprets the plan on descriptor 3 and never returns, so Go never starts: one thread, a few
// pages of memory, and namespaces that a Go process could not join. In every other role it does nothing.
// Descriptors, barriers and the progress page are described in runtime/plan; docs/ops.md has the ops.
//
// Only cmd/cri-mini-init may import it. Invariant: what plan.Decode accepts is what init.c accepts, and init.c
// has seen the whole plan to be sound before it carries out the first op.
package initc

// #cgo CFLAGS: -O2 -Wall -Wextra -Werror -fstack-protector-strong
import "C"
