package cgroup

import (
	"strconv"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// memory sets limits in bytes; -1 means none, 0 unset. Swap is that of memory
// and swap together, as in config.json. The deprecated kernel limit is ignored
// as the specification allows, and on v2 so are the limit of TCP buffers, swappiness
// and the OOM killer's switch, which have no file there.
func (b *builder) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	limit, swap, reservation := deref(m.Limit), deref(m.Swap), deref(m.Reservation)
	if limit < -1 || swap < -1 || reservation < -1 {
		b.fail("resources.memory: limits %d, %d, %d: below -1", limit, swap, reservation)
		return
	}
	if limit > 0 && swap > 0 && swap < limit {
		b.fail("resources.memory.swap: %d is below the memory limit %d; it counts memory and swap together", swap, limit)
		return
	}
	asked := limit != 0 || swap != 0 || reservation != 0 || deref(m.KernelTCP) != 0 || m.Swappiness != nil || deref(m.DisableOOMKiller)
	if !asked {
		return
	}
	if v2, ok := b.on("memory", "memory"); ok && v2 {
		b.memoryV2(limit, swap, reservation)
	} else if ok {
		b.memoryV1(m, limit, swap, reservation)
	}
}

func (b *builder) memoryV1(m *specs.LinuxMemory, limit, swap, reservation int64) {
	const none = "-1"
	if limit == -1 && swap == 0 {
		swap = -1 // no limit on memory cannot be had below one on the sum
	}
	if limit != 0 {
		b.add(setting{controller: "memory", file: "memory.limit_in_bytes", value: decimal(limit), initial: none})
	}
	if swap != 0 {
		// Without swap accounting there is no such file; what does not limit
		// swap, or would forbid it, is then passed over as on v2.
		b.add(setting{
			controller: "memory", file: "memory.memsw.limit_in_bytes", value: decimal(swap), initial: none,
			optional: swap == -1 || swap == limit,
		})
	}
	if reservation != 0 {
		b.add(setting{controller: "memory", file: "memory.soft_limit_in_bytes", value: decimal(reservation), initial: none})
	}
	if n := deref(m.KernelTCP); n != 0 {
		b.add(setting{controller: "memory", file: "memory.kmem.tcp.limit_in_bytes", value: decimal(n), initial: none})
	}
	if deref(m.DisableOOMKiller) {
		b.add(setting{controller: "memory", file: "memory.oom_control", value: "1"})
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
		if *m.Swappiness > 100 {
			b.fail("resources.memory.swappiness: %d is above 100", *m.Swappiness)
		}
		b.add(setting{controller: "memory", file: "memory.swappiness", value: strconv.FormatUint(*m.Swappiness, 10)})
	}
}

func (b *builder) memoryV2(limit, swap, reservation int64) {
	alone, err := cgroups.ConvertMemorySwapToCgroupV2Value(swap, limit)
	if err != nil {
		b.fail("resources.memory.swap: %d with memory limit %d: %w", swap, limit, err)
		return
	}
	if alone != 0 || swap > 0 {
		b.add(setting{
			controller: "memory", file: "memory.swap.max", value: maxOr(alone), initial: "max",
			optional: alone <= 0,
		})
	}
	if limit != 0 {
		b.add(setting{controller: "memory", file: "memory.max", value: maxOr(limit), initial: "max"})
	}
	if reservation != 0 {
		b.add(setting{controller: "memory", file: "memory.low", value: maxOr(reservation), initial: "0"})
	}
}

// maxOr is the v2 word for a limit.
func maxOr(n int64) string {
	if n < 0 {
		return "max"
	}
	return decimal(n)
}
