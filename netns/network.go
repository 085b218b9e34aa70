package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/netns/bridge"
	"github.com/cri-mini/cri-mini/netns/ipam"
)

// Modes of Config.Mode and Attachment.Mode (which is never auto).
const (
	ModeAuto    = "auto"
	ModeBuiltin = "builtin"
	ModeCNI     = "cni"
)

// goneLimit is how long WaitGone waits for the kernel before it deletes a veth
// itself. The kernel needs 5 to 25 ms, seconds when hundreds of namespaces go.
const goneLimit = 5 * time.Second

// Config is the network's configuration. The zero value works.
type Config struct {
	Mode     string   // auto (default), builtin or cni
	ConfDir  string   // default /etc/cni/net.d
	BinDirs  []string // default /opt/cni/bin, /usr/lib/cni
	StateDir string   // default /var/lib/cri-mini/network
	// RunDir holds what no reboot outlives: leases and results of the built-in
	// network. Default StateDir, but a tmpfs is much better: on ext4, after many
	// files were deleted within a minute, creating one takes over a millisecond,
	// because the file system will not use their inodes again so soon.
	RunDir string
	// PodCIDR of the built-in network, one network or one of each address family
	// separated by commas; what SetPodCIDR stored wins. Default: 10.88.0.0/16 and,
	// where the host has IPv6, a /64 that this node made up for itself (RFC 4193).
	PodCIDR string
	Bridge  string // of the built-in network, default cri-mini0; also names its nft table
	MTU     int    // of the built-in network; default: that of the interface with the default route
	Logger  *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.Mode, ModeAuto)
	set(&c.ConfDir, "/etc/cni/net.d")
	set(&c.StateDir, "/var/lib/cri-mini/network")
	set(&c.RunDir, c.StateDir)
	set(&c.Bridge, "cri-mini0")
	if len(c.BinDirs) == 0 {
		c.BinDirs = []string{"/opt/cni/bin", "/usr/lib/cni"}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return c, c.Validate()
}

// Validate names the keys of docs/config.md that are wrong, by their values alone.
func (c Config) Validate() error {
	var wrong []string
	fault := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if c.Mode != ModeAuto && c.Mode != ModeBuiltin && c.Mode != ModeCNI {
		fault("network.mode: %q is none of auto, builtin, cni", c.Mode)
	}
	if !isLinkName(c.Bridge) {
		fault("network.bridge: %q is no interface name: 1 to 15 of a-z, A-Z, 0-9, '-' and '_'", c.Bridge)
	}
	if c.MTU != 0 && (c.MTU < leastMTU || c.MTU > mostMTU) {
		fault("network.mtu: %d is neither 0 nor between %d, the least that IPv6 works with, and %d", c.MTU, leastMTU, mostMTU)
	}
	if c.PodCIDR != "" {
		if _, err := parseCIDRs(c.PodCIDR); err != nil {
			fault("network.pod_cidr: %v", err)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}

// isLinkName is stricter than the kernel (dev_valid_name): the name is also that of the nft table.
func isLinkName(s string) bool {
	ok := len(s) > 0 && len(s) < unix.IFNAMSIZ
	for _, c := range s {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	return ok
}

// leastMTU is RFC 8200's, mostMTU a veth's (ETH_MAX_MTU).
const (
	leastMTU = 1280
	mostMTU  = 65535
)

// Network is safe for concurrent use. One process may use a StateDir or a RunDir
// at a time.
type Network struct {
	cfg    Config
	log    *slog.Logger
	plugin *bridge.Plugin
	leases *ipam.Store
	libs   map[string]*libcni.CNIConfig // by mode: they cache in different places

	ula netip.Prefix // what pods have of IPv6 by default

	mu    sync.Mutex
	state state
	told  Status // that was logged last

	probe probe // what Status found, for a while
}

// New opens the network. It reconciles the built-in one: what the leases need
// and the kernel lacks is made again. Without leases it changes nothing on the
// host; the bridge comes with the first pod.
func New(_ context.Context, cfg Config) (*Network, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, log: cfg.Logger}
	if n.state, err = loadState(cfg.StateDir); err != nil {
		return nil, err
	}
	if err := n.useULA(); err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	if n.leases, err = ipam.Open(filepath.Join(cfg.RunDir, "leases"), strings.TrimSpace(string(boot)), n.log); err != nil {
		return nil, err
	}
	if n.plugin, err = bridge.New(bridge.Config{Bridge: cfg.Bridge, MTU: cfg.MTU, Leases: n.leases, Log: n.log, Changed: n.noteSysctl}); err != nil {
		return nil, err
	}
	exec := &executor{builtin: n.plugin}
	n.libs = map[string]*libcni.CNIConfig{
		ModeBuiltin: libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.RunDir, exec),
		ModeCNI:     libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.StateDir, exec),
	}
	return n, nil
}

// noteSysctl records that a setting of the host was changed, so that whoever
// uninstalls knows what to take back.
func (n *Network) noteSysctl(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Contains(n.state.Sysctls, name) {
		return
	}
	s := n.state
	s.Sysctls = append(slices.Clone(s.Sysctls), name)
	if err := s.save(n.cfg.StateDir); err != nil {
		n.log.Warn("record changed sysctl", "obj", name, "err", err)
		return
	}
	n.state = s
}

// Close lets go of sockets. Pods stay attached.
func (n *Network) Close() { n.plugin.Close() }

// Attach connects the pod and fills att.IPs and att.Result. Repeated with the
// same built-in attachment it returns the same result; a CNI network's plugins
// are first asked to undo what an earlier try left, because ADD may not be
// repeated and DEL may.
func (n *Network) Attach(ctx context.Context, att *Attachment) error {
	c, err := n.open(att)
	if err != nil {
		return fmt.Errorf("attach pod %s: %w", att.PodID, err)
	}
	if att.Mode == ModeCNI && (att.Result != nil || n.cached(c)) {
		if err := c.lib.DelNetworkList(ctx, c.list, c.rt); err != nil {
			return att.wrap("attach", err)
		}
	}
	res, err := c.lib.AddNetworkList(ctx, c.list, c.rt)
	if err != nil {
		return att.wrap("attach", err)
	}
	return att.fill(res)
}

// Detach releases what Attach took: address, host ports, and in a CNI network
// whatever its plugins do on DEL. The netns may be gone already. In the
// built-in network the interfaces stay until the netns is dropped.
func (n *Network) Detach(ctx context.Context, att *Attachment) error {
	c, err := n.open(att)
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", att.PodID, err)
	}
	if !isNetns(c.rt.NetNS) {
		c.rt.NetNS = "" // "the namespace is gone", by the specification
	}
	if err := n.restoreResult(att, c); err != nil {
		return fmt.Errorf("detach pod %s: %w", att.PodID, err)
	}
	if err := c.lib.DelNetworkList(ctx, c.list, c.rt); err != nil {
		return att.wrap("detach", err)
	}
	return nil
}

// isNetns: the bind mount of a dropped namespace leaves an empty file behind.
func isNetns(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Check asks the plugins whether the attachment is as they left it. Networks
// whose cniVersion has no CHECK (before 0.4.0) pass.
func (n *Network) Check(ctx context.Context, att *Attachment) error {
	c, err := n.open(att)
	if err != nil {
		return fmt.Errorf("check network of pod %s: %w", att.PodID, err)
	}
	if err := n.restoreResult(att, c); err != nil {
		return fmt.Errorf("check network of pod %s: %w", att.PodID, err)
	}
	err = c.lib.CheckNetworkList(ctx, c.list, c.rt)
	if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
		return att.wrap("check", err)
	}
	return nil
}

// WaitGone is for after Detach and the drop of the pod's network namespace: it
// returns when the host's end of the veth is gone. The kernel takes it down with
// the namespace in 5 to 25 ms, many at once at the price of one. After 5 s, when
// something else still holds the namespace, it is deleted. CNI plugins delete
// their interfaces in DEL: nothing to wait for.
func (n *Network) WaitGone(ctx context.Context, att *Attachment) error {
	if att.Mode != ModeBuiltin {
		return nil
	}
	return n.plugin.WaitGone(ctx, ipam.Owner{Pod: att.PodID, IfName: att.IfName}, goneLimit)
}

// Remove takes the built-in network's bridge, its nft table and what is in RunDir
// off the host, for an uninstall or a demonstration's end. Detach the pods first.
// Bridge and table stay when neither this Network nor one before it on RunDir can
// have made them.
func (n *Network) Remove() error {
	var err error
	if n.plugin.Started() || n.leases.Reused() {
		err = n.plugin.Remove()
	}
	err = errors.Join(err, n.leases.Remove())
	if n.cfg.RunDir != n.cfg.StateDir {
		for _, dir := range []string{"results", ""} { // what is not empty stays
			os.Remove(filepath.Join(n.cfg.RunDir, dir))
		}
	}
	return err
}
