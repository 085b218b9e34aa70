package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func kill(ctx context.Context, a *app, args []string) error {
	all := false
	fs := newFlags("kill")
	both(fs.BoolVar, &all, "all", "a", "send it to all processes; SIGKILL ends them all without")
	rest, err := parse(fs, args, 1, 2)
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	if len(rest) == 2 {
		if sig, err = parseSignal(rest[1]); err != nil {
			return err
		}
	}
	e := a.engine()
	return e.Kill(ctx, rest[0], sig, all)
}

// parseSignal takes 9, KILL, SIGKILL and sigkill.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 64 { // 0 asks whether there is a process (kill(2))
			return 0, fmt.Errorf("kill: signal %d is not between 0 and 64", n)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("kill: unknown signal %q", s)
}

func remove(ctx context.Context, a *app, args []string) error {
	force := false
	fs := newFlags("delete")
	both(fs.BoolVar, &force, "force", "f", "kill it first if it runs (SIGKILL); one that does not exist is no error")
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	e := a.engine()
	return e.Delete(ctx, rest[0], force)
}
