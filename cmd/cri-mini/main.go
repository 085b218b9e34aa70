// Command cri-mini is a Kubernetes container runtime: a CRI server with its own OCI engine inside.
//
//	cri-mini serve [--config FILE]        serve the CRI
//	cri-mini config [--config FILE]       print the configuration in force
//	cri-mini plan [--config FILE] POD.json [CONTAINER.json]  print what starting a container would do, without doing it
//	cri-mini image COMMAND [--config FILE] ...  pull, load, save, list, inspect, rm, verify, pulls, mount, unmount
//	cri-mini version
//	cri-mini help
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/cri-mini/cri-mini/image/worker"
)

// version is set by the build.
var version = "dev"

type command struct {
	name, usage, about string
	run                func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"serve", "serve [--config FILE]", "serve the CRI", serve},
		{"config", "config [--config FILE]", "check the configuration and print what is in force", showConfig},
		{"plan", "plan [--config FILE] POD.json [CONTAINER.json]", "print what starting a pod and a container would do", showPlan},
		{"image", "image COMMAND [--config FILE] ...", "pull, load, save, list, inspect, rm, verify, mount images; `image help` tells more", imageCommand},
		{"version", "version", "print the version", showVersion},
		{"help", "help", "print this", help},
	}
}

// flags that people try are commands too.
var aliases = map[string]string{"-h": "help", "-help": "help", "--help": "help", "-v": "version", "-version": "version", "--version": "version"}

func main() {
	worker.Main() // does not return in a process that unpacks
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		hint := ""
		if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
			hint = " (this is not root)"
		}
		fmt.Fprintf(os.Stderr, "cri-mini: %v%s\n", err, hint)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage(os.Stderr)
		return errors.New("no command given")
	}
	name := args[0]
	if alias, ok := aliases[name]; ok {
		name = alias
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, args[1:])
		}
	}
	usage(os.Stderr)
	return fmt.Errorf("unknown command %q", args[0])
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  cri-mini %-47s %s\n", c.usage, c.about)
	}
}

func help(_ context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("help: unexpected argument %q", args[0])
	}
	usage(os.Stdout)
	return nil
}

func showVersion(_ context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("version: unexpected argument %q", args[0])
	}
	fmt.Println("cri-mini", version)
	return nil
}
