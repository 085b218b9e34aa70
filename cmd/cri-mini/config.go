package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/cri-mini/cri-mini/image/registry"
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
		ConfigDir    string        `toml:"config_dir"`
		StallTimeout time.Duration `toml:"stall_timeout"`
	} `toml:"registry"`
	Runtime struct {
		PodsPerMonitor int      `toml:"pods_per_monitor"`
		InitPath       string   `toml:"init_path"`
		Handlers       []string `toml:"handlers"`
	} `toml:"runtime"`
	Streaming struct {
		Address     string        `toml:"address"`
		IdleTimeout time.Duration `toml:"idle_timeout"`
	} `toml:"streaming"`
	Log struct {
		Level  string `toml:"level"`
		Format string `toml:"format"`
	} `toml:"log"`
}

func defaults() config {
	var c config
	c.RunDir, c.StateDir = "/run/cri-mini", "/var/lib/cri-mini"
	c.Network.Mode, c.Network.ConfDir, c.Network.Bridge = "auto", "/etc/cni/net.d", "cri-mini0"
	c.Network.BinDirs = []string{"/opt/cni/bin", "/usr/lib/cni"}
	c.Registry.ConfigDir, c.Registry.StallTimeout = "/etc/cri-mini/certs.d", registry.DefaultStallTimeout
	c.Runtime.PodsPerMonitor = 16
	c.Streaming.Address, c.Streaming.IdleTimeout = "127.0.0.1:0", 4*time.Hour
	c.Log.Level, c.Log.Format = "info", "text"
	return c
}

// parse reads the flags of a command that takes --config, and the file.
func parse(name string, args []string) (config, []string, error) {
	fl := flag.NewFlagSet("cri-mini "+name, flag.ContinueOnError)
	path := fl.String("config", "", "configuration `file` (default "+defaultConfigFile+", which need not exist)")
	if err := fl.Parse(args); err != nil {
		return config{}, nil, err
	}
	c, err := readConfig(*path)
	return c, fl.Args(), err
}

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
	return c, c.check()
}

// check names the key that is wrong.
func (c *config) check() error {
	for key, path := range map[string]string{"run_dir": c.RunDir, "state_dir": c.StateDir, "socket": c.Socket} {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return fmt.Errorf("configuration: %s: %q is not an absolute path below /", key, path)
		}
	}
	if n := c.Runtime.PodsPerMonitor; n < 1 || n > 64 {
		return fmt.Errorf("configuration: runtime.pods_per_monitor: %d is not between 1 and 64", n)
	}
	if d := c.Registry.StallTimeout; d < time.Second {
		return fmt.Errorf("configuration: registry.stall_timeout: %s is less than 1s", d)
	}
	if addr, err := netip.ParseAddrPort(c.Streaming.Address); err != nil || !addr.Addr().IsLoopback() {
		return fmt.Errorf("configuration: streaming.address: %q is not a loopback address with a port: what is typed in an exec would cross the network in clear", c.Streaming.Address)
	}
	if d := c.Streaming.IdleTimeout; d < time.Second {
		return fmt.Errorf("configuration: streaming.idle_timeout: %s is less than 1s", d)
	}
	switch c.Log.Format {
	case "text", "json":
	default:
		return fmt.Errorf("configuration: log.format: %q is neither text nor json", c.Log.Format)
	}
	return nil
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
	c, _, err := parse("config", args)
	if err != nil {
		return err
	}
	return toml.NewEncoder(os.Stdout).Encode(c)
}
