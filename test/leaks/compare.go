package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// snapshot maps a kind of thing ("mount", "link") to what there is of it, sorted;
// the same string may be there twice.
type snapshot map[string][]string

// comesAndGoes are kinds of which less is no news: other people's processes end
// while a test runs.
var comesAndGoes = map[string]bool{"process": true, "container process": true}

// compare says line by line what is in one snapshot and not in the other.
func compare(before, after snapshot) []string {
	kinds := map[string]bool{}
	for _, s := range []snapshot{before, after} {
		for kind := range s {
			kinds[kind] = true
		}
	}
	var lines []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		gone, come := subtract(before[kind], after[kind]), subtract(after[kind], before[kind])
		if comesAndGoes[kind] {
			gone = nil
		}
		for _, v := range gone {
			lines = append(lines, fmt.Sprintf("- %s %s", kind, v))
		}
		for _, v := range come {
			lines = append(lines, fmt.Sprintf("+ %s %s", kind, v))
		}
	}
	return lines
}

// subtract returns what a has more of than b.
func subtract(a, b []string) []string {
	count := map[string]int{}
	for _, v := range b {
		count[v]++
	}
	var more []string
	for _, v := range a {
		if count[v]--; count[v] < 0 {
			more = append(more, v)
		}
	}
	return more
}

func (s snapshot) summary() string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, fmt.Sprintf("%d %s", len(s[kind]), kind))
	}
	return strings.Join(parts, ", ")
}
