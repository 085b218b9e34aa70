package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

func pause(ctx context.Context, a *app, args []string) error {
	rest, err := parse(newFlags("pause"), args, 1, 1)
	if err != nil {
		return err
	}
	return a.engine().Pause(ctx, rest[0])
}

func resume(_ context.Context, a *app, args []string) error {
	rest, err := parse(newFlags("resume"), args, 1, 1)
	if err != nil {
		return err
	}
	return a.engine().Resume(rest[0])
}

// processes prints the ids, or what ps(1) of the host tells about them.
func processes(ctx context.Context, a *app, args []string) error {
	format := "table"
	fs := newFlags("ps")
	both(fs.StringVar, &format, "format", "f", "table or json")
	rest, err := parse(fs, args, 1, -1) // what follows the id is for ps(1)
	if err != nil {
		return err
	}
	if format != "table" && format != "json" {
		return fmt.Errorf("invalid format option: %q; there are table and json", format)
	}
	pids, err := a.engine().Processes(rest[0])
	if err != nil {
		return err
	}
	if format == "json" {
		return json.NewEncoder(a.out).Encode(pids)
	}
	options := rest[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	ps := exec.CommandContext(ctx, "ps", options...)
	var complaint bytes.Buffer
	ps.Stderr = &complaint
	out, err := ps.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; install procps, or use --format json", err)
	}
	if err != nil {
		return fmt.Errorf("ps %q: %w: %s", options, err, strings.TrimSpace(complaint.String()))
	}
	return a.pick(string(out), pids)
}

// pick prints the header of what ps said and the lines of some processes.
func (a *app) pick(table string, pids []int) error {
	header, body, _ := strings.Cut(table, "\n")
	column := slices.Index(strings.Fields(header), "PID")
	if column < 0 {
		return fmt.Errorf("ps: no column PID in %q", header)
	}
	fmt.Fprintln(a.out, header)
	for line := range strings.Lines(body) {
		fields := strings.Fields(line)
		if column >= len(fields) {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprint(a.out, line)
		}
	}
	return nil
}
