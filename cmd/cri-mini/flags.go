package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func configFlag(fl *flag.FlagSet) *string {
	return fl.String("config", "", "configuration `FILE`; without it "+defaultConfigFile+", if that is there")
}

// parseFlags is fl.Parse, which says what is wrong in its error alone, and with --help prints the usage and the flags.
func parseFlags(fl *flag.FlagSet, usage string, args []string) error {
	fl.SetOutput(io.Discard)
	fl.Usage = func() {}
	err := fl.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println("usage: cri-mini", usage)
		fl.VisitAll(func(f *flag.Flag) {
			value, about := flag.UnquoteUsage(f)
			dash := "--"
			if len(f.Name) == 1 {
				dash = "-"
			}
			if value != "" {
				value = " " + value
			}
			fmt.Fprintf(os.Stdout, "  %-24s %s\n", dash+f.Name+value, about)
		})
	}
	return err
}

// usageOf is the command's line in `cri-mini help`.
func usageOf(name string) string {
	for _, c := range commands() {
		if c.name == name {
			return c.usage
		}
	}
	return name
}
