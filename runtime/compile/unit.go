package compile

import (
	"slices"
	"strings"

	"github.com/cri-mini/cri-mini/runtime/host"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/runtime/unit"
)

// propertyPrefix begins the annotations that are properties of the container's unit (runc, docs/systemd.md).
const propertyPrefix = "org.systemd.property."

// systemd makes the cgroups, as scopes and slices.
func (b *builder) systemd() bool { return b.o.Facts.CgroupDriver == host.DriverSystemd }

// unit is the container's scope; without a cgroupsPath it is named as runc does.
func (b *builder) unit() (unit.Unit, error) {
	p := b.spec.Linux.CgroupsPath
	if p == "" {
		p = ":runc:" + b.container()
	}
	u, err := unit.Parse(p)
	if err != nil {
		return u, bad("linux.cgroupsPath", "%v", err)
	}
	if b.systemd() && !u.Scope() {
		return u, bad("linux.cgroupsPath", "%q names a slice: processes are in a scope", p)
	}
	return u, nil
}

// makeScope puts the making of the scope behind the clone: systemd takes none without a process.
func (b *builder) makeScope(limits []byte) error {
	u, err := b.unit()
	if err != nil {
		return err
	}
	properties, err := b.properties()
	if err != nil {
		return err
	}
	b.scope = []plan.Op{
		plan.StartUnit(u.String(), u.Path, properties, limits),
		plan.Meet("scope", plan.InitWaits, plan.NoSlot, 0),
	}
	b.unifiedIn = b.o.Facts.Cgroup.Unified != ""
	return nil
}

// properties are those of annotations, sorted. Only a command takes them: annotations of a pod are its author's, who
// may not lift the limits that others have set.
func (b *builder) properties() ([]string, error) {
	var list []string
	for key, value := range b.spec.Annotations {
		name, ok := strings.CutPrefix(key, propertyPrefix)
		if !ok || !b.o.Command {
			continue
		}
		if len(name) < 3 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return nil, bad("annotations", "%q: %q is not the name of a property: it has three letters or more and nothing else", key, name)
		}
		if name == "Slice" || name == "PIDs" {
			return nil, bad("annotations", "%q: is decided by linux.cgroupsPath and the container's process", key)
		}
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// podUnits makes the slice of a pod that has no other one's, and a scope in it for a pause process. In a slice of the
// kubelet's there is the scope only.
func (b *builder) podUnits(pause bool) error {
	name := b.spec.Linux.CgroupsPath
	if !strings.HasSuffix(name, ".slice") {
		if !pause {
			return nil
		}
		return b.makeScope(nil)
	}
	u, err := unit.Parse(name)
	if err != nil {
		return bad("linux.cgroupsPath", "%v", err)
	}
	limits, err := b.resources()
	if err != nil {
		return err
	}
	b.before(plan.StartUnit(u.Name, u.Path, nil, limits))
	if !pause {
		return nil
	}
	spec, linux := *b.spec, *b.spec.Linux
	linux.CgroupsPath = name + ":cri-mini:" + b.o.ID
	spec.Linux, b.spec = &linux, &spec
	return b.makeScope(nil)
}
