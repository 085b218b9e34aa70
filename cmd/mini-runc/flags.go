package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// alias leads the usage of an option's second, short name; what follows is the first.
const alias = "="

// both defines an option under two names.
func both[T any](define func(p *T, name string, value T, usage string), p *T, name, short, usage string) {
	define(p, name, *p, usage)
	define(p, short, *p, alias+name)
}

// many collects an option that may be given more than once.
type many []string

func (m *many) String() string     { return strings.Join(*m, ",") }
func (m *many) Set(s string) error { *m = append(*m, s); return nil }

// bothMany is both for one that may be given more than once.
func bothMany(fs *flag.FlagSet, m *many, name, short, usage string) {
	fs.Var(m, name, usage)
	fs.Var(m, short, alias+name)
}

func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// given tells whether an option was on the command line, with whatever value.
func given(fs *flag.FlagSet, name string) (found bool) {
	fs.Visit(func(f *flag.Flag) { found = found || f.Name == name || f.Usage == alias+name })
	return found
}

// parse reads a command's options, which may stand before and after its arguments, and checks how many of the
// latter there are; most < 0 means any number, and then the options stop at the first (exec, ps).
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
		return nil, fmt.Errorf("%q requires %s: want %s, got %q", fs.Name(), howMany(len(rest), least, most), wanted(fs.Name()), rest)
	}
	return rest, nil
}

// howMany has runc's words.
func howMany(got, least, most int) string {
	switch {
	case least == most:
		return fmt.Sprintf("exactly %d argument(s)", least)
	case got < least:
		return fmt.Sprintf("a minimum of %d argument(s)", least)
	}
	return fmt.Sprintf("a maximum of %d argument(s)", most)
}

func wanted(name string) string {
	if a := commands[name].args; a != "" {
		return a
	}
	return "no arguments"
}

func help(fs *flag.FlagSet) {
	c := commands[fs.Name()]
	fmt.Fprintf(os.Stdout, "usage: mini-runc %s [OPTION...] %s\n\n%s.\n", fs.Name(), c.args, c.help)
	printOptions(os.Stdout, fs)
}

// printOptions lists the options with their second names, one a line.
func printOptions(w io.Writer, fs *flag.FlagSet) {
	short, any := map[string]string{}, false
	fs.VisitAll(func(f *flag.Flag) {
		any = true
		if name, ok := strings.CutPrefix(f.Usage, alias); ok {
			short[name] = f.Name
		}
	})
	if any {
		fmt.Fprint(w, "\nOptions:\n")
	}
	fs.VisitAll(func(f *flag.Flag) {
		if strings.HasPrefix(f.Usage, alias) {
			return
		}
		names, usage := "--"+f.Name, f.Usage
		if s := short[f.Name]; s != "" {
			names += ", -" + s
		}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() {
			names += " VALUE"
			if f.DefValue != "" && f.DefValue != "0" {
				usage += fmt.Sprintf(" (default: %s)", f.DefValue)
			}
		}
		fmt.Fprintf(w, "  %-30s %s\n", names, usage)
	})
}
