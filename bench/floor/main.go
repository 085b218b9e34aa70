// Command floor times the bare system calls that a pod start cannot do without:
// a network namespace with a veth on a bridge, a cgroup in every hierarchy, an
// overlay, and a process in namespaces of its own with that as its root. What a
// runtime takes beyond this is its own doing.
//
//	floor [-runs 50] [-busybox /bin/busybox] [-json]
//
// It imports nothing of this module. It works in mount and network namespaces of
// its own and in a cgroup that it removes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv tells the second of two equal processes that it has its namespaces.
const insideEnv = "CRI_MINI_FLOOR_INSIDE"

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		child()
	}
	runs := flag.Int("runs", 50, "pods to make")
	busybox := flag.String("busybox", "/bin/busybox", "static program that can be called true")
	asJSON := flag.Bool("json", false, "print JSON in place of the table")
	flag.Parse()
	var err error
	if os.Getenv(insideEnv) == "" {
		err = again()
	} else {
		err = measure(*runs, *busybox, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

// again runs this program in namespaces.
func again() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("make namespaces: needs root")
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// step is one part of a pod start; times are in milliseconds.
type step struct {
	Name string  `json:"name"`
	P50  float64 `json:"p50_ms"`
	Max  float64 `json:"max_ms"`
	took []time.Duration
}

func measure(runs int, busybox string, asJSON bool) error {
	runtime.LockOSThread() // it changes its network namespace for a moment
	n, err := newNode(busybox)
	if err != nil {
		return err
	}
	defer n.remove()
	steps := []*step{
		{Name: "netns, veth on a bridge, address, route"}, {Name: "cgroups with limits"}, {Name: "overlay"},
		{Name: "clone, chroot, exec true, wait (Go's vfork)"}, {Name: "all of these = floor of a pod start"},
		{Name: "beside it: the process by way of a Go init with pivot_root"},
	}
	for i := range runs {
		took, err := n.pod(i)
		if err != nil {
			return fmt.Errorf("pod %d: %w", i, err)
		}
		for k, d := range took {
			steps[k].took = append(steps[k].took, d)
		}
	}
	for _, s := range steps {
		slices.Sort(s.took)
		s.P50, s.Max = ms(s.took[len(s.took)/2]), ms(s.took[len(s.took)-1])
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(steps)
	}
	fmt.Printf("floor, %d runs\n p50 ms  max ms\n", runs)
	for _, s := range steps {
		fmt.Printf("%7.2f %7.2f  %s\n", s.P50, s.Max, s.Name)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
