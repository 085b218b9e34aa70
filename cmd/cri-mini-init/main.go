// Command cri-mini-init is the helper that becomes, or looks after, the processes of containers.
//
//	cri-mini-init init            interprets a plan and execs the user's program; C, see runtime/initc
//	cri-mini-init check           tells whether the plan on descriptor 3 is well formed; C too
//	cri-mini-init monitor SOCKET  looks after the containers of a few pods; listens on descriptor 3
//
// It is linked statically, for it is executed inside the container's namespaces:
//
//	CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo -ldflags '-s -w -linkmode external -extldflags "-static"' ./cmd/cri-mini-init
package main

import (
	"os"
	"runtime/debug"

	_ "github.com/cri-mini/cri-mini/runtime/initc" // the roles that never reach main
	"github.com/cri-mini/cri-mini/runtime/monitor"
)

func main() {
	role := "none"
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	if role == "monitor" && len(os.Args) == 3 {
		debug.SetGCPercent(20) // its memory is paid for once per pods_per_monitor pods; it allocates little
		if err := monitor.Run(3, os.Args[2]); err != nil {
			say("cri-mini-init: monitor: " + err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	say("cri-mini-init: unknown role " + role + ": it is started by cri-mini and mini-runc, not by hand\n")
	os.Exit(64)
}

// say writes to standard error, which may be closed.
func say(text string) { _, _ = os.Stderr.WriteString(text) }
