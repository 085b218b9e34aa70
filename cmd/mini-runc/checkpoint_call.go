//go:build !cgo

package main

import "context"

// What is said to criu takes 300 KB that every other call would have in its memory: the full program has it.

func checkpoint(context.Context, *app, []string) error { return needLibrary() }

func restore(context.Context, *app, []string) error { return needLibrary() }
