package cgroup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// settings turns resources of config.json into the files of this machine,
// controller by controller, since a hybrid one has some on v1 and some on v2.
func (t *Tree) settings(r *specs.LinuxResources) (*plan, error) {
	p := &plan{}
	if r == nil {
		return p, nil
	}
	var err error
	if p.devices, err = deviceRules(r.Devices); err != nil {
		return nil, err
	}
	b := &builder{tree: t}
	b.cpu(r.CPU)
	b.cpuset(r.CPU)
	b.memory(r.Memory)
	b.pids(r.Pids)
	b.blockIO(r.BlockIO)
	b.hugepages(r.HugepageLimits)
	b.network(r.Network)
	b.rdma(r.Rdma)
	b.unified(r.Unified)
	if b.err != nil {
		return nil, b.err
	}
	p.settings = b.list
	return p, nil
}

// builder collects settings; the first error stays.
type builder struct {
	tree *Tree
	list []setting
	err  error
}

func (b *builder) add(s setting) { b.list = append(b.list, s) }

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// on returns whether the controller is there and whether it is on v2; field is
// what asked for it.
func (b *builder) on(controller, field string) (v2, ok bool) {
	h := b.tree.find(controller)
	if h == nil {
		b.fail("resources.%s: this machine has no %s controller", field, controller)
		return false, false
	}
	return h.v2, true
}

// pids sets the number of tasks; 0 forbids all but the first, as in runc.
func (b *builder) pids(p *specs.LinuxPids) {
	if p == nil || p.Limit == nil {
		return
	}
	if _, ok := b.on("pids", "pids.limit"); !ok {
		return
	}
	value := "max"
	if *p.Limit >= 0 {
		value = decimal(max(*p.Limit, 1))
	}
	b.add(setting{controller: "pids", file: "pids.max", value: value, initial: "max"})
}

// hugepages sets limits on huge pages in use and, where the kernel counts them,
// reserved. A zero limit on a size that the machine does not have holds anyway.
func (b *builder) hugepages(limits []specs.LinuxHugepageLimit) {
	for i, limit := range limits {
		field := fmt.Sprintf("hugepageLimits[%d]", i)
		if !validPageSize(limit.Pagesize) {
			b.fail(`resources.%s.pageSize: %q is not a size such as "2MB"`, field, limit.Pagesize)
			return
		}
		h := b.tree.find("hugetlb")
		if h == nil && limit.Limit == 0 {
			continue
		}
		v2, ok := b.on("hugetlb", field)
		if !ok {
			return
		}
		suffix := "limit_in_bytes"
		if v2 {
			suffix = "max"
		}
		value := strconv.FormatUint(limit.Limit, 10)
		b.add(setting{controller: "hugetlb", file: "hugetlb." + limit.Pagesize + "." + suffix, value: value, optional: limit.Limit == 0})
		b.add(setting{controller: "hugetlb", file: "hugetlb." + limit.Pagesize + ".rsvd." + suffix, value: value, optional: true})
	}
}

func validPageSize(s string) bool {
	number := strings.TrimRight(s, "KMGB")
	_, err := strconv.ParseUint(number, 10, 32)
	unit := strings.TrimPrefix(s, number)
	return err == nil && (unit == "KB" || unit == "MB" || unit == "GB")
}

func (b *builder) network(n *specs.LinuxNetwork) {
	if n == nil {
		return
	}
	if n.ClassID != nil && *n.ClassID != 0 {
		if _, ok := b.on("net_cls", "network.classID"); !ok {
			return
		}
		b.add(setting{controller: "net_cls", file: "net_cls.classid", value: strconv.FormatUint(uint64(*n.ClassID), 10)})
	}
	for i, p := range n.Priorities {
		if _, ok := b.on("net_prio", fmt.Sprintf("network.priorities[%d]", i)); !ok {
			return
		}
		b.add(setting{
			controller: "net_prio", file: "net_prio.ifpriomap", keyed: true,
			value: fmt.Sprintf("%s %d", p.Name, p.Priority), reset: p.Name + " 0",
		})
	}
}

func (b *builder) rdma(devices map[string]specs.LinuxRdma) {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if _, ok := b.on("rdma", fmt.Sprintf("rdma[%q]", name)); !ok {
			return
		}
		value := name
		if n := devices[name].HcaHandles; n != nil {
			value += fmt.Sprintf(" hca_handle=%d", *n)
		}
		if n := devices[name].HcaObjects; n != nil {
			value += fmt.Sprintf(" hca_object=%d", *n)
		}
		b.add(setting{controller: "rdma", file: "rdma.max", keyed: true, value: value, reset: name + " hca_handle=max hca_object=max"})
	}
}

// unified writes files of the v2 cgroup by name, last, so that they have the
// last word. A value of many lines is written a line at a time, as the kernel
// wants it for files with a line for each device.
func (b *builder) unified(files map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		controller, _, ok := strings.Cut(name, ".")
		switch {
		case !ok || strings.ContainsAny(name, "/\x00"):
			b.fail(`resources.unified[%q]: is not the name of a cgroup v2 file, such as "memory.high"`, name)
		case b.tree.v2 == nil:
			b.fail("resources.unified[%q]: this machine has no cgroup v2", name)
		case controller != "cgroup" && b.tree.find(controller) != b.tree.v2:
			b.fail("resources.unified[%q]: cgroup v2 of this machine has no %s controller; it has %v", name, controller, b.tree.v2.controllers)
		}
		lines := strings.Split(strings.TrimSuffix(files[name], "\n"), "\n")
		for _, line := range lines {
			reset, keyed := unifiedReset(name, line)
			b.add(setting{controller: "", file: name, value: line, keyed: keyed || len(lines) > 1, reset: reset})
		}
	}
}

// unifiedReset gives the line that takes a line's entry out of a v2 file again,
// for those files that have an entry for each device or resource.
func unifiedReset(file, line string) (reset string, keyed bool) {
	key, _, _ := strings.Cut(line, " ")
	switch file {
	case "io.max":
		return key + " rbps=max wbps=max riops=max wiops=max", true
	case "io.latency":
		return key + " target=0", true
	case "io.weight", "io.bfq.weight":
		if key == line { // "100" is short for "default 100"
			return "default 100", false
		}
		return key + " default", true
	case "rdma.max":
		return key + " hca_handle=max hca_object=max", true
	case "misc.max":
		return key + " max", true
	}
	return line, false
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
