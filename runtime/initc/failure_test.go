package initc_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// TestFailureNamesTheOp: the progress page says which op failed, counted in the whole plan, and why.
func TestFailureNamesTheOp(t *testing.T) {
	needRoot(t)
	fs := func(c *container, m plan.FS) { c.Add(plan.NewMount(c.root, m)) }
	execute := func(c *container, candidates ...string) {
		c.Add(plan.PivotRoot(c.root, false), plan.Execute(candidates, []string{"x"}, nil, 0))
	}
	for _, tc := range []struct {
		name string
		add  func(c *container)
		errs syscall.Errno
		back int // how far the failing op is from the plan's end
	}{
		{"unknown file system", func(c *container) { fs(c, plan.FS{Type: "nonsense", Target: "/tmp"}) }, unix.ENODEV, 1},
		{"unknown option", func(c *container) { fs(c, plan.FS{Type: "tmpfs", Target: "/tmp", Options: []string{"sise", "1"}}) }, unix.EINVAL, 1},
		{"option without value", func(c *container) { fs(c, plan.FS{Type: "tmpfs", Target: "/tmp", Options: []string{"size"}}) }, unix.EINVAL, 1},
		{"missing target", func(c *container) { fs(c, plan.FS{Type: "tmpfs", Target: "/none"}) }, unix.ENOENT, 1},
		{"target below a file", func(c *container) {
			fs(c, plan.FS{Type: "tmpfs", Target: "/etc/passwd/x", Create: plan.CreateDir})
		}, unix.ENOTDIR, 1},
		{"target with .. that does not exist", func(c *container) {
			fs(c, plan.FS{Type: "tmpfs", Target: "/none/../x", Create: plan.CreateDir})
		}, unix.ENOENT, 1},
		{"missing source", func(c *container) {
			c.Add(plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: "/none", Target: "/tmp"}))
		}, unix.ENOENT, 1},
		{"directory over a file", func(c *container) {
			c.Add(plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: "/tmp", Target: "/etc/passwd"}))
		}, unix.ENOTDIR, 1},
		{"attributes of no mount", func(c *container) { c.Add(plan.ChangeAttr(c.root, "/etc", plan.AttrRdonly, 0, 0, 0)) }, unix.EINVAL, 1},
		{"unfilled slot", func(c *container) { o := plan.SetStdio(c.NewSlot("x"), 9); o.Slot[0] = plan.SlotPlan; c.Add(o) }, unix.EINVAL, 1},
		{"missing program", func(c *container) { execute(c, "/none", "/bin/none", "/etc/passwd/none") }, unix.ENOTDIR, 1},
		{"program not executable", func(c *container) { execute(c, "/none", "/etc/passwd", "/bin/none") }, unix.EACCES, 1},
		{"program of another format", func(c *container) { execute(c, "/bin/foreign", "/bin/busybox") }, unix.ENOEXEC, 1},
		{"no terminal without devpts", func(c *container) { c.Add(plan.OpenConsole(c.NewSlot("master"), 80, 24, 0, false)) }, unix.ENOENT, 1},
		{"no such directory", func(c *container) { c.Add(plan.PivotRoot(c.root, false), plan.Text(plan.Chdir, "/none")) }, unix.ENOENT, 1},
		{"directory outside of the root", func(c *container) {
			f := c.NewSlot("host")
			c.Ops = append([]plan.Op{plan.Open(f, "/usr", unix.O_RDONLY|unix.O_DIRECTORY, plan.InHost)}, c.Ops...)
			fs(c, plan.FS{Type: "proc", Target: "/proc"})
			c.Add(plan.PivotRoot(c.root, false), plan.Text(plan.Chdir, "/proc/self/fd/8"))
		}, unix.ENOENT, 1},
		{"sysctl that is none", func(c *container) { c.Add(plan.Text(plan.Sysctl, "kernel/none", "1")) }, unix.ENOENT, 1},
		{"sysctl outside of /proc/sys", func(c *container) { c.Add(plan.Text(plan.Sysctl, "../self/comm", "1")) }, unix.EXDEV, 1},
		{"filter of broken length", func(c *container) { c.Add(plan.LoadSeccomp(plan.NoSlot, "", []byte{1, 2, 3}, 0)) }, unix.EINVAL, 1},
		{"more groups than there are", func(c *container) { o := plan.SetUser(0, 0, nil, nil); o.Num[3] = 2; c.Add(o) }, unix.EINVAL, 1},
		{"barrier out of range", func(c *container) { c.Add(plan.Meet("x", plan.ParentWaits, 3, 1<<40)) }, unix.EINVAL, 1},
		{"plan without an end", func(c *container) {}, unix.ENOEXEC, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rootfs := newRootfs(t)
			must(t, os.WriteFile(filepath.Join(rootfs, "bin/foreign"), []byte("\x7fELF nonsense"), 0o755))
			c := newContainer(rootfs)
			tc.add(c)
			p := newParent(t, c.Plan)
			r := p.run()
			if r.Op != len(c.Ops)-tc.back || r.Errno != tc.errs || r.Status.ExitStatus() != 1 {
				t.Errorf("op %d of %d, %v, status %d; want op %d, %v, status 1", r.Op, len(c.Ops), r.Errno, r.Status.ExitStatus(), len(c.Ops)-tc.back, tc.errs)
			}
		})
	}
}

// TestParentGivesUp: a status at a barrier, or the death of the parent, ends init.
func TestParentGivesUp(t *testing.T) {
	p := plan.New()
	p.Add(plan.Meet("go", plan.InitWaits, plan.NoSlot, 0), plan.Bare(plan.Exit))
	for _, status := range []uint32{0, 1} {
		par := newParent(t, p)
		par.flags = 0
		par.meet = func(*plan.Op, int) ([]*os.File, uint32) { return nil, status }
		if r := par.run(); status == 0 && (r.Op >= 0 || r.Status != 0) || status != 0 && (r.Op != 0 || r.Errno != unix.ECANCELED) {
			t.Errorf("status %d: op %d, %v", status, r.Op, r.Errno)
		}
	}
	par := newParent(t, p)
	par.flags = 0
	par.start()
	must(t, par.sync.Close())
	par.sync = par.out // something that can be closed again
	if r := par.wait(); r.Op != 0 || r.Errno != unix.ECANCELED {
		t.Errorf("dead parent: op %d, %v", r.Op, r.Errno)
	}
}

// TestLinksOfTheImageStayInside: no symbolic link of an image moves a mount, a node or a file out of the root.
func TestLinksOfTheImageStayInside(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	rootfs := newRootfs(t)
	up := strings.Repeat("../", 20)
	for name, to := range map[string]string{
		"abs": outside, "rel": up + strings.TrimPrefix(outside, "/"), "dangling": outside + "/new", "deep/link": up + "etc", "dev/fake": "../abs", "loop": "loop",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(rootfs, name)), 0o755))
		must(t, os.Symlink(to, filepath.Join(rootfs, name)))
	}
	c := newContainer(rootfs)
	tmpfs := func(target string) plan.Op {
		return plan.NewMount(c.root, plan.FS{Type: "tmpfs", Target: target, Source: "tmpfs", Create: plan.CreateDir})
	}
	c.Add(
		plan.NewMount(c.root, plan.FS{Type: "proc", Target: "/proc", Source: "proc"}),
		tmpfs("/abs/one"), tmpfs("/rel/two"), tmpfs("/dangling/three"),
		plan.MakeDir(c.root, "/abs/four/five", 0o700),
		plan.MakeNode(c.root, "/dev/fake/node", unix.S_IFCHR|0o600, 1, 3, 0, 0),
		plan.MakeSymlink(c.root, "x", "/abs/six"),
		plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: "/etc/hostname", Target: "/rel/seven", Create: plan.CreateFile}),
		plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: "/etc", Target: "/deep/link", Create: plan.CreateDir}),
		plan.PivotRoot(c.root, false),
	)
	c.shell("cd " + outside + " && find . | sort; grep -c " + outside + " /proc/mounts; grep -c ' /etc ' /proc/mounts")
	p := newParent(t, c.Plan)
	want := ".\n./four\n./four/five\n./new\n./new/three\n./node\n./one\n./seven\n./six\n./two\n4\n1\n"
	if out := p.ran(p.run()); out != want {
		t.Errorf("inside:\n%swant:\n%s", out, want)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside of the root appeared %v, %v", entries, err)
	}

	for _, tc := range []struct {
		name string
		op   func(c *container) plan.Op
		errs syscall.Errno
	}{
		{"proc on a link", func(c *container) plan.Op {
			return plan.NewMount(c.root, plan.FS{Type: "proc", Target: "/abs", Create: plan.CreateDir})
		}, unix.ELOOP},
		{"sysfs on a link that leads nowhere", func(c *container) plan.Op {
			return plan.NewMount(c.root, plan.FS{Type: "sysfs", Target: "/dangling", Create: plan.CreateDir})
		}, unix.ELOOP},
		{"proc on a file", func(c *container) plan.Op {
			return plan.NewMount(c.root, plan.FS{Type: "proc", Target: "/etc/passwd", Create: plan.CreateDir})
		}, unix.ENOTDIR},
		{"loop", func(c *container) plan.Op {
			return plan.NewMount(c.root, plan.FS{Type: "tmpfs", Target: "/loop/x", Create: plan.CreateDir})
		}, unix.ELOOP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(rootfs)
			c.Add(tc.op(c))
			p := newParent(t, c.Plan)
			if r := p.run(); r.Op != len(c.Ops)-1 || r.Errno != tc.errs {
				t.Errorf("op %d, %v; want op %d, %v", r.Op, r.Errno, len(c.Ops)-1, tc.errs)
			}
		})
	}
}

// TestLinksIntoProcfsAreRefused: what the compiler refuses by its name, an image or another container's volume cannot
// reach by a link. Without one the few files that lxcfs emulates, and whole procfs mounts of the host, stay targets.
func TestLinksIntoProcfsAreRefused(t *testing.T) {
	needRoot(t)
	rootfs := newRootfs(t)
	volume := t.TempDir()
	for path, to := range map[string]string{
		filepath.Join(rootfs, "attr"): "/proc/self/attr", filepath.Join(rootfs, "keys"): "proc/keys",
		filepath.Join(rootfs, "deep"): "/tmp/../proc", filepath.Join(rootfs, "cpu"): "/proc/cpuinfo",
		filepath.Join(volume, "up"): "../proc/sys", filepath.Join(rootfs, "self"): "/self2", filepath.Join(rootfs, "self2"): "/proc/thread-self",
	} {
		must(t, os.Symlink(to, path))
	}
	file := filepath.Join(volume, "file")
	must(t, os.WriteFile(file, []byte("emulated\n"), 0o644))
	for _, tc := range []struct {
		name, source, target string
		errs                 syscall.Errno
	}{
		{"directory", volume, "/attr", unix.ELOOP},
		{"file", file, "/keys", unix.ELOOP},
		{"parent is a link", file, "/deep/sys/kernel/core_pattern", unix.ELOOP},
		{"link in a volume", volume, "/tmp/up", unix.ELOOP},
		{"link of procfs itself", volume, "/proc/self", unix.ELOOP},
		{"two links", file, "/self/oom_score_adj", unix.ELOOP},
		{"allowed by its own name only", file, "/cpu", unix.ELOOP},
		{"file system", "", "/attr", unix.ELOOP},
		{"by its name", file, "/proc/cpuinfo", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(rootfs)
			c.Add(plan.NewMount(c.root, plan.FS{Type: "proc", Target: "/proc", Source: "proc"}),
				plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: volume, Target: "/tmp"}))
			if tc.source == "" {
				c.Add(plan.NewMount(c.root, plan.FS{Type: "tmpfs", Target: tc.target, Source: "tmpfs"}))
			} else {
				c.Add(plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: tc.source, Target: tc.target, Create: plan.CreateLike}))
			}
			last := len(c.Ops) - 1
			c.Add(plan.PivotRoot(c.root, false))
			p := newParent(t, c.shell("cat /proc/cpuinfo").Plan)
			r := p.run()
			if tc.errs == 0 {
				if out := p.ran(r); out != "emulated\n" {
					t.Errorf("output %q", out)
				}
			} else if r.Op != last || r.Errno != tc.errs {
				t.Errorf("op %d, %v; want op %d, %v", r.Op, r.Errno, last, tc.errs)
			}
		})
	}
}

// TestFakeProcIsRefused: writes that the host's procfs must get never go to a look-alike.
func TestFakeProcIsRefused(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		name, source string
		errs         syscall.Errno
	}{
		{"directory", "/tmp", unix.EXDEV},
		{"part of procfs", "/proc/sys", unix.EXDEV},
	} {
		p := plan.New()
		root := p.NewSlot("root")
		p.Add(plan.MakeProcess(plan.NewNS), plan.SetPropagation("/", plan.PropPrivate|plan.PropRec),
			plan.PlaceRoot(plan.NoSlot, root, "/"),
			plan.Bind(root, plan.BindMount{Tree: plan.NoSlot, Source: tc.source, Target: "/proc"}),
			plan.PivotRoot(root, false),
			plan.SetOOMScoreAdj(1000))
		par := newParent(t, p)
		if r := par.run(); r.Op != len(p.Ops)-1 || r.Errno != tc.errs {
			t.Errorf("%s: op %d, %v; want %v", tc.name, r.Op, r.Errno, tc.errs)
		}
	}
}
