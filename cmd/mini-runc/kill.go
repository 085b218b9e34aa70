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
	both(fs.BoolVar, &all, "all", "a")
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
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("kill: signal %d is not between 1 and 64", n)
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
	both(fs.BoolVar, &force, "force", "f")
	rest, err := parse(fs, args, 1, 1)
	if err != nil {
		return err
	}
	e := a.engine()
	return e.Delete(ctx, rest[0], force)
}
