package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cri-mini/cri-mini/admin"
	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/image/worker"
)

// imageFlags are those of all image commands; each one takes some.
type imageFlags struct {
	json   bool
	quiet  bool
	creds  string
	name   string
	output string
}

// imageVerb is one command.
type imageVerb struct {
	name, usage, about string
	least, most        int // arguments; most < 0: any number
	// daemon: only a running daemon knows what containers use, or has it in memory.
	daemon bool
	flags  func(*flag.FlagSet, *imageFlags)
	run    func(context.Context, *admin.Client, imageFlags, []string) error
}

func imageVerbs() []imageVerb {
	asJSON := func(fl *flag.FlagSet, f *imageFlags) { fl.BoolVar(&f.json, "json", false, "print JSON") }
	return []imageVerb{
		{"pull", "[--json] [--creds USER:PASSWORD] REF", "fetch an image from its registry", 1, 1, false, func(fl *flag.FlagSet, f *imageFlags) {
			asJSON(fl, f)
			fl.StringVar(&f.creds, "creds", "", "`USER:PASSWORD` at the registry; by default what ~/.docker/config.json or a helper that it names has")
		}, pullImage},
		{"load", "[--json] [--name NAME] FILE", "load an OCI or docker archive, an OCI layout's directory, or - for standard input", 1, 1, false, func(fl *flag.FlagSet, f *imageFlags) {
			asJSON(fl, f)
			fl.StringVar(&f.name, "name", "", "`NAME` of an image that the archive gives none, or its repository if it gives only a tag")
		}, loadImage},
		{"save", "[-o FILE] REF...", "write images as one archive that load and docker load read", 1, -1, false, func(fl *flag.FlagSet, f *imageFlags) {
			fl.StringVar(&f.output, "o", "", "`FILE` to write instead of standard output")
		}, saveImages},
		{"list", "[--json | -q]", "list images", 0, 0, false, func(fl *flag.FlagSet, f *imageFlags) {
			asJSON(fl, f)
			fl.BoolVar(&f.quiet, "q", false, "print ids only")
		}, listImages},
		{"inspect", "REF...", "print all that is known of images, as JSON", 1, -1, false, nil, inspectImages},
		{"rm", "REF...", "remove images with all their names", 1, -1, true, nil, removeImages},
		{"verify", "[--json] [REF...]", "hold the files of images, or of all, against their digests; corrupt ones are set aside", 0, -1, false, asJSON, verifyImages},
		{"pulls", "[--json]", "show the pulls that run, whoever asked for them", 0, 0, true, asJSON, showPulls},
		{"mount", "REF DIR", "show an image at a directory, read-only", 2, 2, true, nil, mountImage},
		{"export", "SOURCE DIR", "write an image's files, of the store or of an archive or layout, to a directory", 2, 2, false, nil, exportImage},
		{"unmount", "DIR", "end a mount", 1, 1, true, nil, unmountImage},
	}
}

// imageCommand is `cri-mini image VERB`.
func imageCommand(ctx context.Context, args []string) error {
	verbs := imageVerbs()
	if len(args) == 0 || aliases[args[0]] == "help" || args[0] == "help" {
		for _, v := range verbs {
			fmt.Printf("  image %-8s%-38s%s\n", v.name, v.usage, v.about)
		}
		if len(args) == 0 {
			return errors.New("image: give one of these commands")
		}
		return nil
	}
	for _, v := range verbs {
		if v.name == args[0] {
			if err := v.call(ctx, args[1:]); err != nil {
				return fmt.Errorf("image %s: %w", v.name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("image: no command %q: see cri-mini image help", args[0])
}

func (v imageVerb) call(ctx context.Context, args []string) error {
	var f imageFlags
	fl := flag.NewFlagSet("image "+v.name, flag.ContinueOnError)
	path := configFlag(fl)
	if v.flags != nil {
		v.flags(fl, &f)
	}
	usage := fmt.Sprintf("image %s [--config FILE] %s", v.name, v.usage)
	if err := parseFlags(fl, usage, args); err != nil {
		return err
	}
	if n := fl.NArg(); n < v.least || (v.most >= 0 && n > v.most) {
		return fmt.Errorf("usage: cri-mini %s", usage)
	}
	if v.name == "export" {
		if _, err := os.Stat(fl.Arg(0)); err == nil { // neither a daemon nor the store has to do with it
			return v.run(ctx, nil, f, fl.Args())
		}
	}
	c, err := readConfig(*path)
	if err != nil {
		return err
	}
	client, done, err := v.client(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(v.run(ctx, client, f, fl.Args()), done())
}

// client is of the daemon, or where none runs of the store itself, if the verb can do with that.
func (v imageVerb) client(ctx context.Context, c config) (*admin.Client, func() error, error) {
	socket := c.adminSocket()
	conn, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err == nil {
		return admin.Dial(socket), conn.Close, nil
	}
	if v.daemon {
		return nil, nil, fmt.Errorf("it takes a running daemon: connect to %s: %w", socket, errors.Unwrap(err))
	}
	state, err := hold("state_dir", c.StateDir)
	if err != nil {
		return nil, nil, err
	}
	log := newLogger(c)
	cfg, err := c.images(log)
	if err != nil {
		state.release()
		return nil, nil, err
	}
	store, err := image.Open(ctx, cfg)
	if err != nil {
		state.release()
		return nil, nil, err
	}
	client, done := admin.Local((&admin.Server{Images: store, Log: log}).Handler())
	return client, func() error {
		defer state.release()
		return errors.Join(done(), store.Close())
	}, nil
}

func pullImage(ctx context.Context, c *admin.Client, f imageFlags, args []string) error {
	auth, err := credentials(args[0], f.creds)
	if err != nil {
		return err
	}
	m := newMeter(f.json)
	images, err := c.Pull(ctx, admin.PullRequest{Ref: args[0], Auth: auth}, m.see)
	return m.end(images, err)
}

func loadImage(ctx context.Context, c *admin.Client, f imageFlags, args []string) error {
	m := newMeter(f.json)
	if args[0] == "-" {
		images, err := c.Load(ctx, os.Stdin, "", f.name, m.see)
		return m.end(images, err)
	}
	path, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	images, err := c.Load(ctx, nil, path, f.name, m.see)
	return m.end(images, err)
}

// saveImages never leaves half a file behind.
func saveImages(ctx context.Context, c *admin.Client, f imageFlags, args []string) error {
	if f.output == "" {
		if isTerminal(os.Stdout) {
			return errors.New("standard output is a terminal: redirect it, or give -o FILE")
		}
		return c.Save(ctx, os.Stdout, args)
	}
	out, err := os.CreateTemp(filepath.Dir(f.output), ".cri-mini-save-*")
	if err != nil {
		return err
	}
	err = errors.Join(c.Save(ctx, out, args), out.Chmod(0o644), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), f.output)
	}
	if err != nil {
		os.Remove(out.Name())
	}
	return err
}

func removeImages(ctx context.Context, c *admin.Client, _ imageFlags, args []string) error {
	for _, ref := range args {
		i, err := c.Remove(ctx, ref)
		if err != nil {
			return err
		}
		fmt.Println(i.ID, strings.Join(i.Tags, " "))
	}
	return nil
}

func mountImage(ctx context.Context, c *admin.Client, _ imageFlags, args []string) error {
	dir, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	i, err := c.Mount(ctx, args[0], dir)
	if err != nil {
		return err
	}
	fmt.Println(i.ID, dir)
	return nil
}

func unmountImage(ctx context.Context, c *admin.Client, _ imageFlags, args []string) error {
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	return c.Unmount(ctx, dir)
}

// images is what the image store is opened with.
func (c *config) images(log *slog.Logger) (image.Config, error) {
	filter, err := unpackFilter()
	return image.Config{
		Worker:   worker.Command{Path: "/proc/self/exe", Filter: filter},
		Root:     filepath.Join(c.StateDir, "images"),
		Registry: registry.Config{ConfigDir: c.Registry.ConfigDir, StallTimeout: time.Duration(c.Registry.StallTimeout)},
		Logger:   log,
	}, err
}

// adminSocket is where the daemon serves package admin.
func (c *config) adminSocket() string { return filepath.Join(c.RunDir, "admin.sock") }
