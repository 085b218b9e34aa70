package compile

import (
	"path"
	"slices"
	"strings"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// checkResctrl looks at what goes into files of the resctrl file system (runtime-spec, config-linux.md, IntelRdt).
func (b *builder) checkResctrl() error {
	r := b.spec.Linux.IntelRdt
	if r == nil {
		return nil
	}
	const field = "linux.intelRdt"
	if b.o.Facts.Resctrl == "" {
		return bad(field, "this machine has no resctrl file system mounted: the processor or the kernel lacks it (Intel RDT, AMD QoS), or mount -t resctrl resctrl /sys/fs/resctrl is missing")
	}
	if id := r.ClosID; id != "" && id != "/" && (strings.Contains(id, "/") || id == "." || id == ".." || slices.Contains(resctrlDirs, id)) {
		return bad(field+".closID", "%q is not the name of a group", id)
	}
	lines := map[string]string{field + ".l3CacheSchema": r.L3CacheSchema, field + ".memBwSchema": r.MemBwSchema}
	for i, s := range r.Schemata {
		lines[at(field+".schemata", i, "")] = s
	}
	for _, name := range sortedKeys(lines) {
		if strings.ContainsAny(lines[name], "\n\x00") {
			return bad(name, "%q is more than one line", lines[name])
		}
	}
	if s := r.MemBwSchema; s != "" && !strings.HasPrefix(s, "MB:") {
		return bad(field+".memBwSchema", "%q does not begin with MB:", s)
	}
	return nil
}

// resctrlDirs are in every group: no group can have their names.
var resctrlDirs = []string{"info", "mon_groups", "mon_data"}

// resctrlGroup is the directory of the group, and of its monitoring group if there is one.
func (b *builder) resctrlGroup() (group, monitor string) {
	r := b.spec.Linux.IntelRdt
	group = path.Join(b.o.Facts.Resctrl, r.ClosID)
	if r.ClosID == "" {
		group = path.Join(b.o.Facts.Resctrl, b.container())
	}
	if r.EnableMonitoring {
		monitor = path.Join(group, "mon_groups", b.container())
	}
	return group, monitor
}

// makeResctrl makes the group and opens what the process joins it by; an exec finds it there.
func (b *builder) makeResctrl() {
	r := b.spec.Linux.IntelRdt
	if r == nil {
		return
	}
	var schemata []string
	for _, s := range slices.Concat([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata) {
		if s != "" {
			schemata = append(schemata, s)
		}
	}
	makes := plan.ResctrlOwn
	switch {
	case r.ClosID == "/" || r.ClosID != "" && len(schemata) == 0:
		makes = plan.ResctrlGiven
	case r.ClosID != "":
		makes = plan.ResctrlShared
	}
	group, monitor := b.resctrlGroup()
	b.before(plan.PrepareResctrl(group, monitor, schemata, makes))
	b.openResctrl()
}

// openResctrl opens the join files: a monitoring group is joined after the group that it is in.
func (b *builder) openResctrl() {
	if b.spec.Linux.IntelRdt == nil {
		return
	}
	group, monitor := b.resctrlGroup()
	b.addJoin("resctrl", path.Join(group, "tasks"), false)
	if monitor != "" {
		b.addJoin("resctrl monitor", path.Join(monitor, "tasks"), false)
	}
}
