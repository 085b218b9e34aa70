package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// printTable shows all runtimes beside each other.
func printTable(out io.Writer, all []*runtime) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "median of pairs\t")
	for _, r := range all {
		fmt.Fprintf(w, "%s\t", r.name)
	}
	for _, r := range all[1:] {
		fmt.Fprintf(w, "%s / %s\t", r.name, all[0].name)
	}
	fmt.Fprintln(w)
	for _, name := range []string{callRun, callCreate, callStart, callDelete, callExec, callState, callKill} {
		fmt.Fprintf(w, "%s, ms\t", name)
		for _, r := range all {
			fmt.Fprintf(w, "%.1f\t", median(r.took[name]))
		}
		for _, r := range all[1:] {
			fmt.Fprintf(w, "%.2f\t", median(ratios(r.took[name], all[0].took[name])))
		}
		fmt.Fprintln(w)
	}
	for _, row := range []struct{ key, title string }{
		{"run", "peak of run"}, {"create", "peak of create"}, {"start", "peak of start"}, {"delete", "peak of delete"}, {"exec", "peak of exec"},
		{"init", "peak of init"}, {"limit", "smallest limit for true"},
	} {
		fmt.Fprintf(w, "%s, KiB\t", row.title)
		for _, r := range all {
			fmt.Fprintf(w, "%d\t", r.memory[row.key])
		}
		for _, r := range all[1:] {
			fmt.Fprintf(w, "%.2f\t", float64(r.memory[row.key])/float64(all[0].memory[row.key]))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// ratios divides round by round.
func ratios(theirs, ours []float64) []float64 {
	list := make([]float64, len(theirs))
	for i := range theirs {
		list[i] = theirs[i] / ours[i]
	}
	return list
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	if n := len(list); n%2 == 0 {
		return (list[n/2-1] + list[n/2]) / 2
	}
	return list[len(list)/2]
}
