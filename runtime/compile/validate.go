package compile

import (
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// checkVersion takes every 1.x of the specification: later ones add fields only (spec.md, versioning).
func checkVersion(v string) error {
	core, _, _ := strings.Cut(v, "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	if v == "" {
		return bad("ociVersion", "is missing")
	}
	if len(parts) != 3 {
		return bad("ociVersion", "%q is not a version such as %s", v, specs.Version)
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return bad("ociVersion", "%q is not a version such as %s", v, specs.Version)
		}
	}
	if parts[0] != "1" {
		return bad("ociVersion", "%q; this runtime knows 1.x", v)
	}
	return nil
}

// checkContainer looks at what no other part of the compiler looks at.
func (b *builder) checkContainer() error {
	l := b.spec.Linux
	switch {
	case !validID(b.o.ID):
		return bad("id", "%q is not an id: letters, digits and _ + - . only", b.o.ID)
	case !b.ns.has(plan.NewNS):
		return bad("linux.namespaces", "a mount namespace is required")
	case b.proc == nil:
		return bad("process", "is missing")
	}
	for _, list := range []struct {
		field string
		paths []string
	}{{"linux.maskedPaths", l.MaskedPaths}, {"linux.readonlyPaths", l.ReadonlyPaths}} {
		for i, p := range list.paths {
			if !path.IsAbs(p) {
				return bad(at(list.field, i, ""), "%q is relative", p)
			}
		}
	}
	if err := checkTimeOffsets(l.TimeOffsets); err != nil {
		return err
	}
	for _, check := range []func() error{b.checkHooks, b.checkNetDevices, b.checkResctrl, b.checkProcess} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// validID keeps ids out of other directories: they become parts of paths.
func validID(id string) bool {
	if id == "" || len(id) > 1024 || id == "." || id == ".." {
		return false
	}
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_+-.", c) {
			return false
		}
	}
	return true
}

func (b *builder) checkProcess() error {
	p := b.proc
	switch {
	case len(p.Args) == 0:
		return bad("process.args", "is empty")
	case p.Args[0] == "":
		return bad("process.args[0]", "is empty")
	case p.Cwd == "":
		return bad("process.cwd", "is empty")
	case !path.IsAbs(p.Cwd):
		return bad("process.cwd", "%q is relative", p.Cwd)
	}
	for i, s := range p.Args {
		if strings.IndexByte(s, 0) >= 0 {
			return bad(at("process.args", i, ""), "holds a NUL byte")
		}
	}
	for i, s := range p.Env {
		if strings.IndexByte(s, 0) >= 0 {
			return bad(at("process.env", i, ""), "holds a NUL byte")
		}
		if strings.IndexByte(s, '=') < 1 {
			return bad(at("process.env", i, ""), "%q is not NAME=value", s)
		}
	}
	if _, _, err := b.affinity(); err != nil {
		return err
	}
	if b.o.PreserveFDs > plan.MaxSlots {
		return bad("preserve-fds", "%d is more than %d", b.o.PreserveFDs, plan.MaxSlots)
	}
	return b.checkUser()
}
