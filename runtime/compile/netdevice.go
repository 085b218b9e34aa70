package compile

import (
	"fmt"
	"strings"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// maxDeviceName is IFNAMSIZ without its NUL.
const maxDeviceName = 15

// checkNetDevices wants names that the kernel takes, each of them once.
func (b *builder) checkNetDevices() error {
	devices := b.spec.Linux.NetDevices
	if len(devices) > 0 && !b.ns.has(plan.NewNet) {
		return bad("linux.netDevices", "need a network namespace to be moved to")
	}
	inside := map[string]string{}
	for _, device := range sortedKeys(devices) {
		field := fmt.Sprintf("linux.netDevices[%q]", device)
		name := devices[device].Name
		if name == "" {
			name = device
		}
		if !validDevice(device) || strings.Contains(device, "%") {
			return bad(field, "is not the name of a network device")
		}
		if !validDevice(name) || strings.Contains(strings.TrimSuffix(name, "%d"), "%") {
			return bad(field+".name", "%q is not the name of a network device", name)
		}
		if other, ok := inside[name]; ok && !strings.HasSuffix(name, "%d") {
			return bad(field+".name", "%q is the name of %s too", name, other)
		}
		inside[name] = device
	}
	return nil
}

// validDevice is the kernel's rule (net/core/dev.c, dev_valid_name).
func validDevice(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxDeviceName && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

// moveNetDevices has the parent move them while init stands still in its network namespace.
func (b *builder) moveNetDevices() {
	devices := b.spec.Linux.NetDevices
	if len(devices) == 0 {
		return
	}
	b.then(plan.Meet("network-namespace", plan.ParentWaits, plan.NoSlot, 0))
	for _, device := range sortedKeys(devices) {
		name := devices[device].Name
		if name == "" {
			name = device
		}
		b.then(plan.MoveDevice(device, name))
	}
	b.then(plan.Meet("net-devices", plan.InitWaits, plan.NoSlot, 0))
}
