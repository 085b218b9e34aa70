package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// result is what one mode measured. Calls may be recorded at the same time.
type result struct {
	Mode    string     `json:"mode"`
	Seconds float64    `json:"seconds"`
	Calls   []*call    `json:"calls"`
	Rates   []rate     `json:"rates"`
	mu      sync.Mutex // guards Calls and what is in them
}

// call is a kind of RPC; times are in milliseconds.
type call struct {
	Name  string  `json:"name"`
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
	took  []time.Duration
}

// rate is how many of something were done in a second of wall time.
type rate struct {
	What      string  `json:"what"`
	PerSecond float64 `json:"per_second"`
}

func newResult(mode string) *result { return &result{Mode: mode} }

func (r *result) add(name string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.Calls, func(c *call) bool { return c.Name == name })
	if i < 0 {
		r.Calls = append(r.Calls, &call{Name: name})
		i = len(r.Calls) - 1
	}
	r.Calls[i].took = append(r.Calls[i].took, took)
}

func (r *result) rate(what string, n int, took time.Duration) {
	r.Rates = append(r.Rates, rate{what, float64(n) / took.Seconds()})
}

// finish computes the figures.
func (r *result) finish(took time.Duration) {
	r.Seconds = took.Seconds()
	for _, c := range r.Calls {
		slices.Sort(c.took)
		c.Count = len(c.took)
		c.P50, c.P99, c.Max = ms(percentile(c.took, 50)), ms(percentile(c.took, 99)), ms(percentile(c.took, 100))
	}
	slices.SortStableFunc(r.Calls, func(a, b *call) int { return cmp.Compare(order(a.Name), order(b.Name)) })
}

// percentile is the nearest-rank one of sorted values: the smallest that at
// least p percent of them do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// order sorts calls as they follow each other in a pod's life.
func order(name string) int {
	life := []string{callRun, callCreate, callStart, callReady, callLog, callExec, callStop, callRemoveContainer, callStopPod, callRemovePod}
	if i := slices.Index(life, name); i >= 0 {
		return i
	}
	return len(life)
}

func (r *result) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s (%.1f s)\n", r.Mode, r.Seconds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "n\tp50 ms\tp99 ms\tmax ms\t  \n")
	for _, c := range r.Calls {
		fmt.Fprintf(w, "%d\t%.2f\t%.2f\t%.2f\t  %s\n", c.Count, c.P50, c.P99, c.Max, c.Name)
	}
	_ = w.Flush() // of a terminal
	for _, rt := range r.Rates {
		fmt.Fprintf(out, "  %s: %.1f/s\n", rt.What, rt.PerSecond)
	}
}
