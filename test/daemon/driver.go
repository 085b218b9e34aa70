package daemon

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path"
	"strings"
	"time"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/unit"
)

// driverEnv says with which cgroup driver the daemons of the tests run: cgroupfs, or systemd where that is PID 1.
const driverEnv = "CRI_MINI_TEST_CGROUP_DRIVER"

// Driver is that driver. Tests do not leave it to the daemon, since what they give as parents depends on it.
func Driver() string { return cmp.Or(os.Getenv(driverEnv), host.DriverCgroupfs) }

// Parent is what a kubelet would give as cgroup_parent, made of one or more names.
func Parent(names ...string) string {
	if Driver() == host.DriverSystemd {
		return strings.Join(names, "-") + ".slice"
	}
	return "/" + strings.Join(names, "/")
}

// MakeParent makes it, as kubelet does.
func MakeParent(parent string) error {
	if !unit.Is(parent) {
		return MakeCgroup(parent)
	}
	tree, err := cgroups()
	if err != nil {
		return err
	}
	return tree.Create(context.Background(), parent, nil)
}

// RemoveParent removes a slice. Directories go with the machine that the tests have to themselves.
func RemoveParent(parent string) error {
	if !unit.Is(parent) {
		return nil
	}
	tree, err := cgroups()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(tree.Kill(ctx, parent), tree.Remove(ctx, parent))
}

func cgroups() (*cgroup.Tree, error) {
	facts, err := host.Probe()
	if err != nil {
		return nil, err
	}
	return cgroup.New(cgroup.Config{Layout: cgroup.Layout(facts.Cgroup)})
}

// Group is where the cgroup of a container is, within each hierarchy, whose pod has a parent.
func Group(parent, id string) string {
	if u, err := unit.Parse(parent + ":cri-mini:" + id); unit.Is(parent) && err == nil {
		return u.Path
	}
	return path.Join(parent, id)
}

// OwnGroup is where the cgroup of a pod is that has no parent.
func OwnGroup(pod string) string {
	if u, err := unit.Parse("cri_mini-pod" + pod + ".slice"); Driver() == host.DriverSystemd && err == nil {
		return u.Path
	}
	return "/cri-mini/" + pod
}
