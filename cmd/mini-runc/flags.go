package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// both defines an option under two names.
func both[T any](define func(p *T, name string, value T, usage string), p *T, name, short string) {
	define(p, name, *p, "")
	define(p, short, *p, "")
}

// many collects an option that may be given more than once.
type many []string

func (m *many) String() string     { return strings.Join(*m, ",") }
func (m *many) Set(s string) error { *m = append(*m, s); return nil }

func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads a command's options, which may stand before and after its arguments, and checks how many of the
// latter there are; most < 0 means any number, and then the options stop at the first (exec).
func parse(fs *flag.FlagSet, args []string, least, most int) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				help(fs)
			}
			return nil, err
		}
		left := fs.Args()
		stop := len(left) < len(args) && args[len(args)-len(left)-1] == "--"
		if len(left) == 0 || stop || most < 0 {
			rest = append(rest, left...)
			break
		}
		rest, args = append(rest, left[0]), left[1:]
	}
	if len(rest) < least || most >= 0 && len(rest) > most {
		return nil, fmt.Errorf("%s: want %s, got %q", fs.Name(), wanted(fs.Name()), rest)
	}
	return rest, nil
}

func wanted(name string) string {
	if a := commands[name].args; a != "" {
		return a
	}
	return "no arguments"
}

func help(fs *flag.FlagSet) {
	fmt.Fprintf(os.Stdout, "usage: mini-runc %s [OPTION...] %s\n\n%s. Options:\n", fs.Name(), commands[fs.Name()].args, commands[fs.Name()].help)
	fs.VisitAll(func(f *flag.Flag) {
		dash, value := "--", " VALUE"
		if len(f.Name) == 1 {
			dash = "-"
		}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			value = ""
		}
		fmt.Fprintf(os.Stdout, "  %s%s%s\n", dash, f.Name, value)
	})
}
