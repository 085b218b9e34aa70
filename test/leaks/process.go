package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processes returns ours, by name, and those that live in another mount namespace
// than we do and are not ours: a container that was left behind has any name.
// Zombies are counted, kernel threads are not.
func processes(proc string) (named, contained []string) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return []string{"not counted: " + err.Error()}, nil
	}
	self, _ := os.Readlink(filepath.Join(proc, "self/ns/mnt"))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it went while we looked
		}
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
		line := fmt.Sprintf("%d %s", pid, strings.TrimSpace(string(comm)))
		if args[0] != "" {
			line += ": " + strings.Join(args, " ")
		}
		ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		switch {
		case isOurs(strings.TrimSpace(string(comm))) || isOurs(filepath.Base(args[0])):
			named = append(named, line)
		case err == nil && ns != self:
			contained = append(contained, line)
		}
	}
	slices.Sort(named)
	slices.Sort(contained)
	return named, contained
}

func isOurs(name string) bool {
	return strings.HasPrefix(name, "cri-mini") || strings.HasPrefix(name, "mini-runc")
}
