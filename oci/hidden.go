package oci

import "slices"

// What /proc and /sys hold that tells about the node or changes it, whatever
// the container's namespaces (the same lists as Kubernetes' default procMount).
var (
	defaultMasked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	defaultReadonly = []string{
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	}
)

// hiddenPaths returns the masked and read-only paths. On the wire an empty list
// and none are the same, yet mean two things: the kubelet always sends lists,
// and empties them for procMount Unmasked, which Kubernetes allows only in a
// user namespace. So empty means "unmasked" there and "the default" elsewhere.
func (b *builder) hiddenPaths() (masked, readonly []string, err error) {
	if b.privileged {
		return nil, nil, nil
	}
	masked, readonly = b.sc.GetMaskedPaths(), b.sc.GetReadonlyPaths()
	if !b.userns() {
		if len(masked) == 0 {
			masked = slices.Clone(defaultMasked)
		}
		if len(readonly) == 0 {
			readonly = slices.Clone(defaultReadonly)
		}
	}
	for i, p := range masked {
		if why := checkAbs(p); why != "" {
			return nil, nil, badContainer(indexed(scField+"masked_paths", i), "%s", why)
		}
	}
	for i, p := range readonly {
		if why := checkAbs(p); why != "" {
			return nil, nil, badContainer(indexed(scField+"readonly_paths", i), "%s", why)
		}
	}
	return masked, readonly, nil
}
