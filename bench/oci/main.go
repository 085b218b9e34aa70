// Command oci times OCI runtimes as their callers do: each command is a process
// that is started, waited for, and measured from outside. All runtimes get the
// same bundle, a static busybox that runs `true`, and take turns within a round,
// so that what else the machine does falls on all of them.
//
//	oci [-rounds 20] NAME=PROGRAM[@OCIVERSION]...
//
// The first is compared with each of the others: the median of what theirs took
// divided by what ours took in the same round. It needs root, and /sys/fs/cgroup;
// bench/peers/oci runs it with its peers on a machine of its own.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	rounds := flag.Int("rounds", 20, "rounds of all commands")
	busybox := flag.String("busybox", "/bin/busybox", "static busybox for the bundle")
	flag.Parse()
	if err := measure(*rounds, *busybox, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(1)
	}
}

func measure(rounds int, busybox string, args []string) (err error) {
	if len(args) == 0 || rounds < 1 {
		return fmt.Errorf("read arguments: want [-rounds N] NAME=PROGRAM[@OCIVERSION] and more of these")
	}
	dir, err := os.MkdirTemp("", "cri-mini-oci-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var all []*runtime
	defer func() {
		for _, r := range all {
			r.close()
		}
	}()
	for _, arg := range args {
		name, program, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("read %q: want NAME=PROGRAM", arg)
		}
		r, err := newRuntime(dir, busybox, name, program)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	for round := range rounds {
		for i := range all { // each is the first in its turn
			if err := all[(i+round)%len(all)].round(); err != nil {
				return err
			}
		}
	}
	for _, r := range all {
		if err := r.weigh(); err != nil {
			return err
		}
	}
	return printTable(os.Stdout, all)
}
