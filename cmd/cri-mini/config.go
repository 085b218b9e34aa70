package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/netns"
	"github.com/cri-mini/cri-mini/runtime/cgroup"
)

// defaultConfigFile is read when no other is named; it need not exist.
const defaultConfigFile = "/etc/cri-mini/config.toml"

// config is the whole configuration (docs/config.md). A file of zero bytes is a valid one.
type config struct {
	RunDir   string `toml:"run_dir"`
	StateDir string `toml:"state_dir"`
	Socket   string `toml:"socket"` // "" is RunDir/cri-mini.sock

	Network struct {
		Mode    string   `toml:"mode"`
		PodCIDR string   `toml:"pod_cidr"`
		ConfDir string   `toml:"conf_dir"`
		BinDirs []string `toml:"bin_dirs"`
		Bridge  string   `toml:"bridge"`
		MTU     int      `toml:"mtu"`
	} `toml:"network"`
	Registry struct {
		ConfigDir    string   `toml:"config_dir"`
		StallTimeout duration `toml:"stall_timeout"`
	} `toml:"registry"`
	Runtime struct {
		PodsPerMonitor int      `toml:"pods_per_monitor"`
		InitPath       string   `toml:"init_path"`
		Handlers       []string `toml:"handlers"`
		CgroupDriver   string   `toml:"cgroup_driver"`
	} `toml:"runtime"`
	Streaming struct {
		Address     string   `toml:"address"`
		IdleTimeout duration `toml:"idle_timeout"`
	} `toml:"streaming"`
	Log struct {
		Level  string `toml:"level"`
		Format string `toml:"format"`
	} `toml:"log"`
}

// duration is written with its unit. time.Duration itself takes a bare number too, as nanoseconds, which nobody means.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is not a duration with its unit, such as "30s" or "1h30m"`, text)
	}
	*d = duration(v)
	return nil
}

func (d duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
func (d duration) String() string               { return time.Duration(d).String() }

func defaults() config {
	var c config
	c.RunDir, c.StateDir = "/run/cri-mini", "/var/lib/cri-mini"
	c.Network.Mode, c.Network.ConfDir, c.Network.Bridge = netns.ModeAuto, "/etc/cni/net.d", "cri-mini0"
	c.Network.BinDirs = []string{"/opt/cni/bin", "/usr/lib/cni"}
	c.Registry.ConfigDir, c.Registry.StallTimeout = "/etc/cri-mini/certs.d", duration(registry.DefaultStallTimeout)
	c.Runtime.PodsPerMonitor, c.Runtime.Handlers, c.Runtime.CgroupDriver = 16, []string{}, cgroup.DriverAuto
	c.Streaming.Address, c.Streaming.IdleTimeout = "127.0.0.1:0", duration(4*time.Hour)
	c.Log.Level, c.Log.Format = "info", "text"
	return c
}

// parse reads the flags of a command that takes --config, and the file. The command takes at most some more arguments.
func parse(name string, args []string, most int) (config, []string, error) {
	fl := flag.NewFlagSet(name, flag.ContinueOnError)
	path := configFlag(fl)
	if err := parseFlags(fl, usageOf(name), args); err != nil {
		return config{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	if fl.NArg() > most {
		return config{}, nil, fmt.Errorf("%s: unexpected argument %q", name, fl.Arg(most))
	}
	c, err := readConfig(*path)
	return c, fl.Args(), err
}

// readConfig gives the configuration that is in force with the file, checked.
func readConfig(path string) (config, error) {
	c := defaults()
	named := path != ""
	if !named {
		path = defaultConfigFile
	}
	md, err := toml.DecodeFile(path, &c)
	if errors.Is(err, fs.ErrNotExist) && !named {
		err = nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		names := make([]string, len(unknown))
		for i, k := range unknown {
			names[i] = k.String()
		}
		sort.Strings(names)
		return c, fmt.Errorf("read configuration %s: unknown key %s", path, strings.Join(names, ", "))
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.RunDir, "cri-mini.sock")
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// network is the part that netns is given.
func (c *config) network() netns.Config {
	return netns.Config{
		Mode: c.Network.Mode, ConfDir: c.Network.ConfDir, BinDirs: c.Network.BinDirs, PodCIDR: c.Network.PodCIDR, Bridge: c.Network.Bridge, MTU: c.Network.MTU,
		StateDir: filepath.Join(c.StateDir, "network"), RunDir: filepath.Join(c.RunDir, "network"),
	}
}

// initPath finds the helper: where the configuration says, beside this program, or in libexec.
func (c *config) initPath() (string, error) {
	if c.Runtime.InitPath != "" {
		return c.Runtime.InitPath, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own path: %w", err)
	}
	for _, dir := range []string{filepath.Dir(self), "/usr/libexec/cri-mini"} {
		path := filepath.Join(dir, "cri-mini-init")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("cri-mini-init is neither beside %s nor in /usr/libexec/cri-mini: set runtime.init_path", self)
}

func showConfig(_ context.Context, args []string) error {
	c, _, err := parse("config", args, 0)
	if err != nil {
		return err
	}
	return toml.NewEncoder(os.Stdout).Encode(c)
}
