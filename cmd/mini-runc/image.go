package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/host"
)

// imageConfig is what of an image's config (image-spec, config.md) a bundle needs, as `cri-mini image export` prints it.
type imageConfig struct {
	Config struct {
		Entrypoint, Cmd, Env []string
		WorkingDir           string
		Labels               map[string]string
		StopSignal           string
	} `json:"config"`
	User specs.User `json:"user"`
}

// makeBundle makes a bundle of an image: its files, and a config.json that runs what it says. Images are cri-mini's
// business, which is many times our size: that program is called for it.
func makeBundle(ctx context.Context, a *app, args []string) error {
	fs := newFlags("bundle")
	terminal := false
	both(fs.BoolVar, &terminal, "tty", "t", "give the program a terminal")
	config := fs.String("config", "", "cri-mini's configuration file, which says where its store is")
	rest, err := parse(fs, args, 2, 2)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(rest[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	path := filepath.Join(dir, "config.json")
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("bundle: File %s exists. Remove it first", path)
	}
	img, err := export(ctx, *config, rest[0], filepath.Join(dir, "rootfs"))
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	facts, err := host.Probe()
	if err != nil {
		return err
	}
	spec := exampleSpec(facts.Cgroup.Mode == host.CgroupV2)
	img.describe(spec)
	spec.Process.Terminal = terminal
	return writeSpec(spec, path)
}

// export has cri-mini write the files and tell the rest.
func export(ctx context.Context, config, source, rootfs string) (img imageConfig, err error) {
	program, err := exec.LookPath(beside("cri-mini"))
	if err != nil {
		return img, fmt.Errorf("images are read by cri-mini: %w; it belongs beside this program, or there", err)
	}
	args := []string{"image", "export"}
	if config != "" {
		args = append(args, "--config", config)
	}
	cmd := exec.CommandContext(ctx, program, append(args, source, rootfs)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return img, fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return img, decode("what cri-mini says of "+source, out, &img)
}

// describe makes the example run what the image says, as its user, in a root of its own that can be written.
func (img imageConfig) describe(spec *specs.Spec) {
	p, c := spec.Process, img.Config
	if args := append(c.Entrypoint, c.Cmd...); len(args) > 0 {
		p.Args = args
	}
	if len(c.Env) > 0 {
		p.Env = append(c.Env, "TERM=xterm")
	}
	if c.WorkingDir != "" {
		p.Cwd = filepath.Join("/", c.WorkingDir)
	}
	p.User = img.User
	spec.Root.Readonly = false
	spec.Annotations = map[string]string{}
	for name, value := range c.Labels { // others may mean something to a runtime, such as org.systemd.property.X
		if strings.HasPrefix(name, "org.opencontainers.image.") {
			spec.Annotations[name] = value
		}
	}
	if c.StopSignal != "" {
		spec.Annotations["org.opencontainers.image.stopSignal"] = c.StopSignal // image-spec, conversion.md
	}
}
