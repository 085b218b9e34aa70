package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is what all pods of a run share.
type node struct {
	dir     string   // lower directory of all overlays and what the pods need beside it
	cgroups []string // this run's directory in every hierarchy
	bridge  *netlink.Bridge
	netns   int // the one that the bridge is in
}

func newNode(busybox string) (*node, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make / private: %w", err)
	}
	n := &node{bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "floor0"}}}
	var err error
	if n.dir, err = os.MkdirTemp("", "cri-mini-floor-"); err != nil {
		return nil, err
	}
	if err := errors.Join(n.image(busybox), n.network(), n.makeCgroups()); err != nil {
		n.remove()
		return nil, err
	}
	return n, nil
}

func (n *node) remove() {
	for _, c := range n.cgroups {
		os.Remove(c)
	}
	os.RemoveAll(n.dir)
}

func (n *node) image(busybox string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	for _, d := range []string{"lower/bin", "lower/proc", "root"} {
		if err := os.MkdirAll(filepath.Join(n.dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(n.dir, "lower/bin/true"), program, 0o755)
}

func (n *node) network() (err error) {
	if n.netns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open netns: %w", err)
	}
	if err := netlink.LinkAdd(n.bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	return netlink.LinkSetUp(n.bridge)
}

// makeCgroups makes the run's directory in every hierarchy there is.
func (n *node) makeCgroups() error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(after, "cgroup") {
			continue
		}
		dir := filepath.Join(strings.Fields(before)[4], fmt.Sprintf("cri-mini-floor-%d", os.Getpid()))
		if err := makeCgroup(dir, nil); err != nil {
			return err
		}
		n.cgroups = append(n.cgroups, dir)
	}
	return nil
}

// makeCgroup makes one directory and sets what limits it has files for.
func makeCgroup(dir string, limits map[string]string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // empty at first (cpusets(7))
		if v, err := os.ReadFile(filepath.Join(filepath.Dir(dir), f)); err == nil {
			if err := os.WriteFile(filepath.Join(dir, f), v, 0); err != nil {
				return fmt.Errorf("set cpuset: %w", err)
			}
		}
	}
	for f, v := range limits {
		err := os.WriteFile(filepath.Join(dir, f), []byte(v), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("set limit: %w", err)
		}
	}
	return nil
}

var podLimits = map[string]string{
	"memory.limit_in_bytes": "67108864", "cpu.cfs_quota_us": "100000", "cpu.shares": "512", "pids.max": "100",
}

// pod makes and unmakes one pod; the times are of the making, in the order of the
// steps in measure.
func (n *node) pod(i int) ([]time.Duration, error) {
	var took []time.Duration
	began := time.Now()
	lap := func() {
		took = append(took, time.Since(began))
		began = time.Now()
	}
	netns, err := n.attach(i)
	if err != nil {
		return nil, err
	}
	defer unix.Close(netns) // the veth goes with it
	lap()

	var joins []string
	for _, c := range n.cgroups {
		dir := filepath.Join(c, fmt.Sprint(i))
		if err := makeCgroup(dir, podLimits); err != nil {
			return nil, err
		}
		defer os.Remove(dir)
		joins = append(joins, dir)
	}
	lap()

	root, err := n.overlay(i)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	lap()

	if err := n.chrooted(root, netns); err != nil {
		return nil, err
	}
	lap()
	took = append(took, took[0]+took[1]+took[2]+took[3])

	began = time.Now()
	if err := n.pivoted(root, netns, joins); err != nil {
		return nil, err
	}
	lap()
	return took, nil
}

// attach makes a network namespace with an interface whose other end is on the
// bridge: one netlink message for the pair, two inside.
func (n *node) attach(i int) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	netns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if back := unix.Setns(n.netns, unix.CLONE_NEWNET); err != nil || back != nil {
		return -1, fmt.Errorf("open netns: %w", errors.Join(err, back))
	}
	attrs := netlink.LinkAttrs{Name: fmt.Sprintf("floor-%d", i), MasterIndex: n.bridge.Index, Flags: net.FlagUp}
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(netns)}
	if err := netlink.LinkAdd(pair); err != nil {
		return -1, fmt.Errorf("add veth: %w", err)
	}
	return netns, inNetns(netns, n.netns, configure)
}

func inNetns(netns, back int, f func() error) error {
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter netns: %w", err)
	}
	return errors.Join(f(), unix.Setns(back, unix.CLONE_NEWNET))
}

func configure() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 99, 0, 2), Mask: net.CIDRMask(16, 32)}}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(eth, address), netlink.LinkSetUp(eth)); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IPv4(10, 99, 0, 1)})
}

// overlay returns a detached mount, as fsmount(2) does.
func (n *node) overlay(i int) (int, error) {
	upper, work := filepath.Join(n.dir, fmt.Sprint("u", i)), filepath.Join(n.dir, fmt.Sprint("w", i))
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return -1, err
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"lowerdir", filepath.Join(n.dir, "lower")}, {"upperdir", upper}, {"workdir", work}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("set overlay %s: %w", o[0], err)
		}
	}
	if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
		return -1, fmt.Errorf("set overlay volatile: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create overlay: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("fsmount overlay: %w", err)
	}
	return root, nil
}
