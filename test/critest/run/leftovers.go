package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// leftBehind lists what is there and was not before the daemon was.
func leftBehind(j job, before []string) []string {
	return slices.DeleteFunc(look(j), func(what string) bool { return slices.Contains(before, what) })
}

// look lists what is on the machine: processes, mounts below the daemon's
// directories, links other than bridges, and cgroups that have processes.
// Monitors go when their last pod is gone, and bridges and empty parent cgroups
// may stay, so they are not listed.
func look(j job) []string {
	var left []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		words, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if len(words) > 0 { // a zombie has none
			left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(bytes.TrimRight(words, "\x00"), []byte{0}, []byte{' '})))
		}
	}
	points, _ := mountPoints()
	for _, at := range points {
		if at != j.RunDir && (strings.HasPrefix(at, j.RunDir+"/") || strings.HasPrefix(at, j.Scratch+"/")) {
			left = append(left, "mount "+at)
		}
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		if _, err := os.Stat("/sys/class/net/" + l.Name + "/bridge"); err != nil {
			left = append(left, "link "+l.Name)
		}
	}
	for _, m := range j.Mounts {
		for _, dir := range cgroupsBelow(m.Dir)[1:] {
			procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if filepath.Base(dir) != hostCgroup && len(procs) > 0 {
				left = append(left, fmt.Sprintf("cgroup %s with processes", dir))
			}
		}
	}
	return left
}

func countLines(text []byte) int { return bytes.Count(text, []byte{'\n'}) }
