package netns

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const insideEnv = "CRI_MINI_NETNS_TEST"

// TestMain runs the tests once more in a network and mount namespace of their
// own, so that they may change whatever they like; both vanish with the process.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(insideEnv) != "" {
		if err := inside(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare private namespaces:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), insideEnv+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	_, missing := os.Stat(pluginsDir)
	err := self.Run()
	if missing != nil {
		os.Remove(pluginsDir) // it was made to mount upon
	}
	if err != nil {
		if self.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "start tests in private namespaces:", err)
		}
		os.Exit(1)
	}
	os.Exit(0)
}

// pluginsDir is where the CNI plugins keep files.
const pluginsDir = "/var/lib/cni"

func inside() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// iptables keeps files under /run.
	for _, dir := range []string{"/run", pluginsDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	// The net package finds out once, with sockets on ::1, whether there is IPv6:
	// not first in a namespace whose lo is down.
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	return l.Close()
}
