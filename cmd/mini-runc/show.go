package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/cri-mini/cri-mini/runtime/engine"
)

func state(_ context.Context, a *app, args []string) error {
	rest, err := parse(newFlags("state"), args, 1, 1)
	if err != nil {
		return err
	}
	e := a.engine()
	s, err := e.State(rest[0])
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n", b)
	return err
}

func list(_ context.Context, a *app, args []string) error {
	format, quiet := "table", false
	fs := newFlags("list")
	both(fs.StringVar, &format, "format", "f", "table or json")
	both(fs.BoolVar, &quiet, "quiet", "q", "print ids only")
	if _, err := parse(fs, args, 0, 0); err != nil {
		return err
	}
	e := a.engine()
	if _, err := os.Stat(a.root); a.rootSet && err != nil {
		return err // runc takes only the default one for one without containers
	}
	listed, err := e.List()
	if err != nil {
		return err
	}
	var states []engine.CommandState // null when there is none, as runc prints it
	for _, l := range listed {
		l.Owner = userName(l.UID)
		states = append(states, l.CommandState)
	}
	switch {
	case quiet:
		for _, s := range states {
			fmt.Fprintln(a.out, s.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(a.out).Encode(states)
	case format == "table":
		return table(a, states)
	}
	return fmt.Errorf("invalid format option: %q; there are table and json", format)
}

func table(a *app, states []engine.CommandState) error {
	w := tabwriter.NewWriter(a.out, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range states {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id
}

// showPlan prints what create and start would do with a bundle on this machine.
func showPlan(_ context.Context, a *app, args []string) error {
	var m making
	fs := newFlags("plan")
	m.define(fs)
	rest, err := parse(fs, args, 0, 1)
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		m.bundle = rest[0]
	}
	a.dry = true
	e := a.engine()
	b, err := openBundle(m.bundle)
	if err != nil {
		return err
	}
	p, err := m.plan(a, b, "ID", e.Gate("ID"))
	if err != nil {
		return err
	}
	_, err = p.WriteTo(a.out)
	return err
}
