package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/cri-mini/cri-mini/admin"
)

func listImages(ctx context.Context, c *admin.Client, f imageFlags, _ []string) error {
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(list)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	if !f.quiet {
		fmt.Fprintln(w, "IMAGE\tID\tSIZE\tPINNED")
	}
	for _, i := range list {
		if f.quiet {
			fmt.Fprintln(w, i.ID)
			continue
		}
		names := i.Tags
		if len(names) == 0 {
			names = append(i.Digests, "<none>")[:1]
		}
		for _, name := range names {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, short(i.ID), inUnits(int64(i.Size)), yes(i.Pinned))
		}
	}
	return w.Flush()
}

func inspectImages(ctx context.Context, c *admin.Client, _ imageFlags, args []string) error {
	list := []*admin.Image{}
	for _, ref := range args {
		i, err := c.Inspect(ctx, ref)
		if err != nil {
			return err
		}
		list = append(list, i)
	}
	return printJSON(list)
}

func verifyImages(ctx context.Context, c *admin.Client, f imageFlags, args []string) error {
	layers, bytes := 0, int64(0)
	err := c.Verify(ctx, args, func(e admin.Event) {
		if f.json {
			_ = printJSON(e.Layer)
			return
		}
		verdict := "ok"
		if e.Layer.Error != "" {
			verdict = e.Layer.Error
		}
		layers, bytes = layers+1, bytes+e.Layer.Bytes
		fmt.Printf("%s  %9s  %s\n", short(e.Layer.Layer.String()), inUnits(e.Layer.Bytes), verdict)
		for _, gone := range e.Layer.Gone {
			fmt.Printf("  image %s has it and is set aside: pull it again\n", gone)
		}
	})
	if err == nil && !f.json {
		fmt.Printf("%d layers, %s: all are what their digests say\n", layers, inUnits(bytes))
	}
	return err
}

func showPulls(ctx context.Context, c *admin.Client, f imageFlags, _ []string) error {
	list, err := c.Pulls(ctx)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(list)
	}
	for _, p := range list {
		fmt.Println(strings.Join(pullLines(p, nil), "\n"))
	}
	return nil
}

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// short is the beginning of a digest that commands take for it.
func short(id string) string {
	_, hex, _ := strings.Cut(id, ":")
	return hex[:min(12, len(hex))]
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// inUnits words a number of bytes in powers of ten.
func inUnits(n int64) string {
	v, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// printLine prints one event of a stream.
func printLine(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }
