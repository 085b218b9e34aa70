// Command cri-mini is a Kubernetes container runtime: a CRI server with its own OCI engine inside.
//
//	cri-mini serve [--config FILE]        serve the CRI
//	cri-mini config [--config FILE]       print the configuration in force
//	cri-mini plan [--config FILE] POD.json [CONTAINER.json]  print what starting a container would do, without doing it
//	cri-mini image load FILE              load an OCI archive into the image store of a daemon that is not running
//	cri-mini version
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "dev"

type command struct {
	usage string
	run   func(ctx context.Context, args []string) error
}

var commands = map[string]command{
	"serve":   {"serve [--config FILE]", serve},
	"config":  {"config [--config FILE]", showConfig},
	"plan":    {"plan [--config FILE] POD.json [CONTAINER.json]", showPlan},
	"image":   {"image load [--config FILE] FILE", imageCommand},
	"version": {"version", showVersion},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "cri-mini:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage()
		return errors.New("no command given")
	}
	c, ok := commands[args[0]]
	if !ok {
		usage()
		return fmt.Errorf("unknown command %q", args[0])
	}
	return c.run(ctx, args[1:])
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage:")
	for _, name := range []string{"serve", "config", "plan", "image", "version"} {
		fmt.Fprintln(os.Stderr, "  cri-mini", commands[name].usage)
	}
}

func showVersion(context.Context, []string) error {
	fmt.Println("cri-mini", version)
	return nil
}
