package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
)

// maxSocket is the longest path of a socket in bytes: sun_path and its final zero (unix(7)).
const maxSocket = len(unix.RawSockaddrUnix{}.Path) - 1

// monitorSocket is as long as the name of a monitor's socket below run_dir.
const monitorSocket = "/monitors/0123456789abc.sock"

// faults gathers what is wrong, so that one look at the file mends all of it.
type faults []string

func (f *faults) add(key string, value any, wrong string) {
	switch value.(type) {
	case string, []string:
		*f = append(*f, fmt.Sprintf("%s: %q %s", key, value, wrong))
	default:
		*f = append(*f, fmt.Sprintf("%s: %v %s", key, value, wrong))
	}
}

// check names each key that is wrong, its value and what is allowed. It looks at nothing on the machine: a file is good
// or bad everywhere alike.
func (c *config) check() error {
	var f faults
	c.checkPaths(&f)
	if err := c.checkNetwork(&f); err != nil {
		f = append(f, err.Error())
	}
	c.checkRuntime(&f)
	for key, d := range map[string]duration{"registry.stall_timeout": c.Registry.StallTimeout, "streaming.idle_timeout": c.Streaming.IdleTimeout} {
		if d < duration(time.Second) {
			f.add(key, d, "is less than 1s")
		}
	}
	if addr, err := netip.ParseAddrPort(c.Streaming.Address); err != nil || !addr.Addr().IsLoopback() {
		f.add("streaming.address", c.Streaming.Address, "is not a loopback address with a port, such as 127.0.0.1:0: what is typed in an exec would cross the network in clear")
	}
	if !slices.Contains(levels, c.Log.Level) {
		f.add("log.level", c.Log.Level, "is none of "+strings.Join(levels, ", "))
	}
	if !slices.Contains(formats, c.Log.Format) {
		f.add("log.format", c.Log.Format, "is none of "+strings.Join(formats, ", "))
	}
	if len(f) == 0 {
		return nil
	}
	slices.Sort(f)
	return errors.New(strings.Join(f, "; "))
}

var (
	levels  = []string{"debug", "info", "warn", "error"}
	formats = []string{"text", "json"}
	drivers = []string{cgroup.DriverAuto, host.DriverCgroupfs, host.DriverSystemd}
)

func (c *config) checkPaths(f *faults) {
	for key, path := range map[string]string{"run_dir": c.RunDir, "state_dir": c.StateDir, "socket": c.Socket} {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			f.add(key, path, "is not an absolute path below /")
		}
	}
	for key, path := range map[string]string{"network.conf_dir": c.Network.ConfDir, "registry.config_dir": c.Registry.ConfigDir} {
		if !filepath.IsAbs(path) {
			f.add(key, path, "is not an absolute path")
		}
	}
	if c.Runtime.InitPath != "" && !filepath.IsAbs(c.Runtime.InitPath) {
		f.add("runtime.init_path", c.Runtime.InitPath, "is not an absolute path")
	}
	// Each is cleared by rules of its own, and a tmpfs on the one would hide the other.
	if within(c.RunDir, c.StateDir) || within(c.StateDir, c.RunDir) {
		f.add("run_dir", c.RunDir, fmt.Sprintf("and state_dir %q are one directory or one is in the other: they must be apart", c.StateDir))
	}
	if len(c.Socket) > maxSocket {
		f.add("socket", c.Socket, fmt.Sprintf("is longer than the %d bytes of a socket's path", maxSocket))
	}
	if most := maxSocket - len(monitorSocket); len(c.RunDir) > most {
		f.add("run_dir", c.RunDir, fmt.Sprintf("is longer than the %d bytes that leave room for a socket's name", most))
	}
}

// within tells whether a path is a directory or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (c *config) checkNetwork(f *faults) error {
	if len(c.Network.BinDirs) == 0 {
		f.add("network.bin_dirs", c.Network.BinDirs, "names no directory")
	}
	for _, dir := range c.Network.BinDirs {
		if !filepath.IsAbs(dir) {
			f.add("network.bin_dirs", dir, "is not an absolute path")
		}
	}
	return c.network().Validate()
}

func (c *config) checkRuntime(f *faults) {
	if n := c.Runtime.PodsPerMonitor; n < 1 || n > 64 {
		f.add("runtime.pods_per_monitor", n, "is not between 1 and 64")
	}
	if !slices.Contains(drivers, c.Runtime.CgroupDriver) {
		f.add("runtime.cgroup_driver", c.Runtime.CgroupDriver, "is none of "+strings.Join(drivers, ", "))
	}
	for i, h := range c.Runtime.Handlers {
		if !isLabel(h) {
			f.add("runtime.handlers", h, "is no name for a handler: 1 to 63 of a-z, 0-9 and '-', which is neither first nor last")
		}
		if slices.Contains(c.Runtime.Handlers[:i], h) {
			f.add("runtime.handlers", h, "is there twice")
		}
	}
}

// isLabel: Kubernetes lets a RuntimeClass name nothing but a DNS label (RFC 1123).
func isLabel(s string) bool {
	ok := len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for _, c := range s {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	return ok
}
