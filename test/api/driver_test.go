package api

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/runtime/cgroup"
	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/test/daemon"
)

// TestCgroupDriver: the kubelet is told which driver it is, whoever looks is told why, and a parent as the other driver
// has it is refused with what to change.
func TestCgroupDriver(t *testing.T) {
	n := start(t)
	driver, other := criapi.CgroupDriver_CGROUPFS, "kubepods-burstable-podx.slice"
	if daemon.Driver() == host.DriverSystemd {
		driver, other = criapi.CgroupDriver_SYSTEMD, "/kubepods/burstable/podx"
	}
	config, err := n.Runtime.RuntimeConfig(n.ctx(), &criapi.RuntimeConfigRequest{})
	if err != nil || config.GetLinux().GetCgroupDriver() != driver {
		t.Errorf("RuntimeConfig: %v, %v; want %s", config, err, driver)
	}
	st, err := n.Runtime.Status(n.ctx(), &criapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ CgroupDriver, CgroupDriverBecause string }
	if err := json.Unmarshal([]byte(st.Info["config"]), &info); err != nil || info.CgroupDriver != daemon.Driver() || !strings.Contains(info.CgroupDriverBecause, "asked for") {
		t.Errorf("status: %+v, %v", info, err)
	}
	n.unchanged(func() {
		pod := podConfig("driver", func(c *criapi.PodSandboxConfig) { c.Linux.CgroupParent = other })
		_, err := n.Runtime.RunPodSandbox(n.ctx(), &criapi.RunPodSandboxRequest{Config: pod})
		mustFail(t, err, codes.InvalidArgument, "linux.cgroup_parent", other, "cgroup driver is "+daemon.Driver(), "set cgroupDriver of the kubelet", "runtime.cgroup_driver")
	})
}

// TestSystemdDriverWithoutSystemd: asked for where it is not, it is said at start.
func TestSystemdDriverWithoutSystemd(t *testing.T) {
	n := another(t, "api-driver")
	if _, _, err := cgroup.ChooseDriver(t.Context(), host.DriverSystemd, cgroup.Layout{}); err == nil {
		t.Skip("systemd is PID 1 here")
	}
	n.Config = "[runtime]\ncgroup_driver = \"systemd\"\n"
	out, err := n.Refused()
	if err != nil || !strings.Contains(out, `runtime.cgroup_driver: "systemd": systemd cannot be reached: PID 1 is `) {
		t.Errorf("%v; it said:\n%s", err, out)
	}
}
