package compile

import (
	"slices"
	"strings"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// options are parsed mount options (runtime-spec, config-linux.md, Linux mount options; mount(8)).
type options struct {
	bind, recursive, remount bool
	set, clear               uint64   // attributes of the mount
	recSet, recClear         uint64   // attributes of it and all below: rro, rnosuid …
	propagation              []uint64 // in order; the kernel takes one at a time
	data                     []string // for the file system: keys and values, alternating
	idmap                    bool
	idmapRec                 bool // the submounts' ids too
	copyUp                   bool // a tmpfs begins with what it covers
}

// attribute is an option that sets or clears one attribute.
type attribute struct {
	bits  uint64
	clear bool
}

// attributes are for the mount alone; with an r before, for all mounts below it too. "atime" and its relatives
// are one field with relatime as its zero, so setting one replaces another.
var attributes = map[string]attribute{
	"ro": {plan.AttrRdonly, false}, "rw": {plan.AttrRdonly, true},
	"nosuid": {plan.AttrNosuid, false}, "suid": {plan.AttrNosuid, true},
	"nodev": {plan.AttrNodev, false}, "dev": {plan.AttrNodev, true},
	"noexec": {plan.AttrNoexec, false}, "exec": {plan.AttrNoexec, true},
	"nodiratime": {plan.AttrNodiratime, false}, "diratime": {plan.AttrNodiratime, true},
	"nosymfollow": {plan.AttrNosymfollow, false}, "symfollow": {plan.AttrNosymfollow, true},
	"noatime": {plan.AttrNoatime, false}, "atime": {plan.AttrNoatime, true},
	"strictatime": {plan.AttrStrictatime, false}, "nostrictatime": {plan.AttrStrictatime, true},
	"relatime": {0, false}, "norelatime": {0, true},
}

var propagations = map[string]uint64{
	"private": plan.PropPrivate, "rprivate": plan.PropPrivate | plan.PropRec,
	"slave": plan.PropSlave, "rslave": plan.PropSlave | plan.PropRec,
	"shared": plan.PropShared, "rshared": plan.PropShared | plan.PropRec,
	"unbindable": plan.PropUnbindable, "runbindable": plan.PropUnbindable | plan.PropRec,
}

// MountOptions are the options that have a meaning here, sorted; all others go to the file system.
func MountOptions() []string {
	list := []string{"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "defaults", "silent", "loud"}
	for name := range attributes {
		list = append(list, name, "r"+name)
	}
	for name := range propagations {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// parseOptions reads the options of one mount. What is not known here goes to the file system, which refuses
// what it does not know either.
func parseOptions(field string, list []string) (options, error) {
	var o options
	for _, s := range list {
		if p, ok := propagations[s]; ok {
			o.propagation = append(o.propagation, p)
			continue
		}
		if a, ok := attributes[s]; ok {
			applyAttribute(s, a, &o.set, &o.clear)
			continue
		}
		if a, ok := attributes[strings.TrimPrefix(s, "r")]; ok && strings.HasPrefix(s, "r") {
			applyAttribute(s[1:], a, &o.recSet, &o.recClear)
			continue
		}
		switch s {
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "remount":
			o.remount = true
		case "idmap", "ridmap":
			o.idmap, o.idmapRec = true, s == "ridmap"
		case "tmpcopyup":
			o.copyUp = true
		case "defaults", "silent", "loud", "":
		default:
			if strings.IndexByte(s, 0) >= 0 {
				return o, bad(field, "%q holds a NUL byte", s)
			}
			key, value, _ := strings.Cut(s, "=")
			o.data = append(o.data, key, value)
		}
	}
	return o, nil
}

func applyAttribute(name string, a attribute, set, clear *uint64) {
	if strings.HasSuffix(name, "atime") && !strings.HasSuffix(name, "diratime") {
		if a.clear && a.bits == 0 {
			return // norelatime: there is no other default
		}
		*set &^= plan.AttrAtimeMask
		*clear |= plan.AttrAtimeMask
		if !a.clear {
			*set |= a.bits
		}
		return
	}
	if a.clear {
		*set, *clear = *set&^a.bits, *clear|a.bits
	} else {
		*set, *clear = *set|a.bits, *clear&^a.bits
	}
}

// shared says whether the mount shall pass on what is mounted below it.
func (o *options) shared() bool {
	for _, p := range o.propagation {
		if p&plan.PropShared != 0 {
			return true
		}
	}
	return false
}
