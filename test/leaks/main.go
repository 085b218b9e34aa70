// Command leaks counts what a container runtime could leave in the kernel and on
// the machine, and compares two counts. It owns no state and imports nothing of
// this module, so that it cannot share a mistake with what it watches.
//
//	leaks snapshot > before.json
//	...
//	leaks diff -wait 10s before.json
//
// diff exits with 1 and a list when something has appeared or changed. Run both
// as root: what cannot be read is not counted, and the snapshot says so.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

const usage = "usage: leaks snapshot | leaks diff [-wait duration] FILE"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	var err error
	differ := false
	switch os.Args[1] {
	case "snapshot":
		err = write(os.Stdout, take())
	case "diff":
		differ, err = diff(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q; %s", os.Args[1], usage)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "leaks:", err)
		os.Exit(2)
	case differ:
		os.Exit(1)
	}
}

func write(w io.Writer, s snapshot) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

func diff(args []string) (bool, error) {
	flags := flag.NewFlagSet("diff", flag.ExitOnError)
	wait := flags.Duration("wait", 0, "how long to wait for what the kernel gives up in its own time")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if flags.NArg() != 1 {
		return false, fmt.Errorf("diff needs the file of the first snapshot; %s", usage)
	}
	data, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return false, fmt.Errorf("read snapshot: %w", err)
	}
	var before snapshot
	if err := json.Unmarshal(data, &before); err != nil {
		return false, fmt.Errorf("read snapshot %s: %w", flags.Arg(0), err)
	}
	deadline := time.Now().Add(*wait)
	for {
		after := take()
		lines := compare(before, after)
		if len(lines) == 0 {
			fmt.Printf("leaks: none; %s\n", after.summary())
			return false, nil
		}
		if time.Now().After(deadline) {
			fmt.Printf("leaks: %d differences\n", len(lines))
			for _, l := range lines {
				fmt.Println(" ", l)
			}
			return true, nil
		}
		time.Sleep(200 * time.Millisecond)
	}
}
