package initc_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// container builds the plan of a default container around a shell script: what a CRI container has, without cgroups.
type container struct {
	*plan.Plan
	tree, root plan.Slot
}

// newContainer begins the plan: everything up to the attached root.
func newContainer(rootfs string) *container {
	c := &container{Plan: plan.New()}
	c.tree, c.root = c.NewSlot("rootfs"), c.NewSlot("root")
	c.Add(
		plan.CloneTree(plan.Parent, c.tree, plan.Tree{Source: rootfs, UserNS: plan.NoSlot}),
		plan.MakeProcess(plan.NewNS|plan.NewPID|plan.NewIPC|plan.NewUTS|plan.NewNet),
		plan.SetPropagation("/", plan.PropSlave|plan.PropRec),
		plan.PlaceRoot(c.tree, c.root, rootfs),
	)
	return c
}

// mounts adds the mounts and devices that the runtime specification asks for.
func (c *container) mounts() *container {
	fs := func(typ, target string, attrs uint64, options ...string) plan.Op {
		return plan.NewMount(c.root, plan.FS{Type: typ, Target: target, Source: typ, Options: options, Attrs: attrs, Create: plan.CreateDir})
	}
	const safe = plan.AttrNosuid | plan.AttrNoexec | plan.AttrNodev
	c.Add(
		fs("proc", "/proc", safe),
		fs("tmpfs", "/dev", plan.AttrNosuid|plan.AttrStrictatime, "mode", "755", "size", "65536k"),
		fs("devpts", "/dev/pts", plan.AttrNosuid|plan.AttrNoexec, "newinstance", "", "ptmxmode", "0666", "mode", "0620", "gid", "5"),
		fs("mqueue", "/dev/mqueue", safe),
		fs("tmpfs", "/dev/shm", safe, "mode", "1777", "size", "65536k"),
		fs("sysfs", "/sys", safe|plan.AttrRdonly),
	)
	for i, d := range []string{"null", "zero", "full", "tty", "random", "urandom"} {
		minor := []uint32{3, 5, 7, 0, 8, 9}[i]
		major := uint32(1)
		if d == "tty" {
			major = 5
		}
		c.Add(plan.MakeNode(c.root, "/dev/"+d, unix.S_IFCHR|0o666, major, minor, 0, 0))
	}
	c.Add(
		plan.MakeSymlink(c.root, "/proc/self/fd", "/dev/fd"),
		plan.MakeSymlink(c.root, "/proc/self/fd/1", "/dev/stdout"),
		plan.MakeSymlink(c.root, "pts/ptmx", "/dev/ptmx"),
	)
	return c
}

// finish adds pivot, masks, user, capabilities and seccomp, and execs the script.
func (c *container) finish(script string) *container {
	c.Add(plan.PivotRoot(c.root, false))
	for _, p := range []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/not/there", "/etc/shadow", "/secret"} {
		c.Add(plan.Hide(c.root, p))
	}
	for _, p := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/etc"} {
		c.Add(plan.Lock(c.root, p))
	}
	umask := uint32(0o027)
	const caps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE
	c.Add(
		plan.Text(plan.Hostname, "inside"),
		plan.Text(plan.Keyring, "cri-mini-test"),
		plan.Limit(7, 512, 1024), // nofile
		plan.Text(plan.Chdir, "/tmp"),
		plan.SetBounding(caps),
		plan.SetUser(1000, 100, []uint32{5, 70000}, &umask),
		plan.SetCaps(caps, caps, 1<<unix.CAP_KILL, 1<<unix.CAP_KILL),
		plan.Bare(plan.NoNewPrivs),
		plan.LoadSeccomp(plan.NoSlot, "no uname", denySyscall(unix.SYS_UNAME), 0),
	)
	return c.shell(script)
}

func (c *container) shell(script string) *container {
	c.Add(plan.Execute([]string{"/usr/bin/busybox", "/bin/busybox"}, []string{"busybox", "sh", "-c", script}, []string{"GREETING=hello", "PATH=/bin"}, 0))
	return c
}

// denySyscall is a filter under which one system call fails with EPERM.
func denySyscall(nr uint32) []byte {
	var b []byte
	for _, f := range []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},
	} {
		b, _ = binary.Append(b, binary.LittleEndian, f)
	}
	return b
}

// TestContainer runs a whole default container and asks it from inside what it has.
func TestContainer(t *testing.T) {
	needRoot(t)
	before := mountTable(t)
	c := newContainer(newRootfs(t)).mounts().finish(strings.Join([]string{
		"id -u; id -g; id -G", "echo $GREETING $$; cat /proc/self/comm", "pwd; umask; ulimit -n; cat /proc/sys/kernel/hostname",
		"grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp|SigIgn|SigBlk):' /proc/self/status",
		"uname 2>&1", "ls /proc/self/fd", "wc -c < /etc/shadow; ls /secret | wc -l; wc -c < /proc/timer_list",
		"touch /secret/x 2>&1; touch /etc/x 2>&1; echo 1 2>&1 > /proc/sys/vm/drop_caches",
		"ls /; readlink /dev/fd; cat /proc/mounts | wc -l; stat -c '%F %t %T %a' /dev/null /dev/tty",
	}, "\n"))
	p := newParent(t, c.Plan)
	out := p.ran(p.run())
	for _, want := range []string{
		"1000\n100\n100 5 70000\n", "hello 1\ncat\n", "/tmp\n0027\n512\ninside\n",
		"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "CapEff:\t0000000000000020", "CapBnd:\t0000000000000421", "NoNewPrivs:\t1", "Seccomp:\t2",
		"\n\n0\n1\n2\n3\n0\n0\n0\n", "Read-only file system", "bin\ndev\netc\nproc\nsecret\nsys\ntmp\n/proc/self/fd\n",
		"character special file 1 3 666", "character special file 5 0 666",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	if after := mountTable(t); after != before {
		t.Errorf("the host's mounts changed:\n%s\n%s", before, after)
	}
}

func mountTable(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	return string(b)
}

// TestBind takes sources by tree and by name, and makes targets that are missing.
func TestBind(t *testing.T) {
	needRoot(t)
	rootfs := newRootfs(t)
	must(t, os.Symlink("/run", filepath.Join(rootfs, "var-run"))) // dangling: the image has no /run
	source := t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "file"), []byte("content\n"), 0o644))
	c := newContainer(rootfs)
	tree, none, own := c.NewSlot("volume"), c.NewSlot("missing"), c.NewSlot("cloned by init")
	bind := func(m plan.BindMount) plan.Op { return plan.Bind(c.root, m) }
	c.Ops = append([]plan.Op{
		plan.CloneTree(plan.Parent, tree, plan.Tree{Source: source, UserNS: plan.NoSlot}),
		plan.CloneTree(plan.Parent, none, plan.Tree{Source: "/not/there", Flags: plan.BindOptional, UserNS: plan.NoSlot}),
	}, c.Ops...)
	c.Add(
		plan.CloneTree(plan.Init, own, plan.Tree{Source: "/not/there", Flags: plan.BindOptional, UserNS: plan.NoSlot}),
		bind(plan.BindMount{Tree: own, Target: "/mnt/none", Flags: plan.BindOptional, Create: plan.CreateDir}),
		plan.CloneTree(plan.Init, own, plan.Tree{Source: source, Flags: plan.BindRecursive, Propagation: plan.PropPrivate, UserNS: plan.NoSlot}),
		bind(plan.BindMount{Tree: own, Target: "own", Create: plan.CreateLike}),
		bind(plan.BindMount{Tree: tree, Target: "/mnt/a/b", Set: plan.AttrRdonly, Create: plan.CreateLike}),
		bind(plan.BindMount{Tree: none, Target: "/mnt/none", Flags: plan.BindOptional, Create: plan.CreateDir}),
		bind(plan.BindMount{Tree: plan.NoSlot, Source: "/not/there", Target: "/mnt/none", Flags: plan.BindOptional, Create: plan.CreateDir}),
		bind(plan.BindMount{Tree: plan.NoSlot, Source: source + "/file", Target: "/var-run/secrets/file", Set: plan.AttrNoatime, Create: plan.CreateLike}),
		bind(plan.BindMount{Tree: plan.NoSlot, Source: source, Target: "/../../etc/../tmp/x/", Flags: plan.BindRecursive, Propagation: plan.PropPrivate | plan.PropRec, Create: plan.CreateLike}),
		plan.NewMount(c.root, plan.FS{Type: "proc", Target: "/proc", Source: "proc"}),
		plan.ChangeAttr(c.root, "/", plan.AttrRdonly, 0, 0, 0),
		plan.PivotRoot(c.root, false),
	)
	c.shell("cat /mnt/a/b/file /run/secrets/file /tmp/x/file own/file; touch /mnt/a/b/x 2>&1; touch /tmp/x/new; ls /mnt; touch /q 2>&1; grep secrets /proc/mounts")
	p := newParent(t, c.Plan)
	out := p.ran(p.run())
	want := "content\ncontent\ncontent\ncontent\ntouch: /mnt/a/b/x: Read-only file system\na\ntouch: /q: Read-only file system\n"
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "noatime") {
		t.Errorf("output:\n%swant:\n%s… noatime …", out, want)
	}
	if _, err := os.Stat(filepath.Join(source, "new")); err != nil {
		t.Errorf("the writable bind did not reach the source: %v", err)
	}
}

// TestHostRootfs runs without a tree: the root is a directory of the host that is bound onto itself.
func TestHostRootfs(t *testing.T) {
	needRoot(t)
	for _, noPivot := range []bool{false, true} {
		rootfs := newRootfs(t)
		p := plan.New()
		root := p.NewSlot("root")
		p.Add(plan.MakeProcess(plan.NewNS), plan.SetPropagation("/", plan.PropPrivate|plan.PropRec), plan.PlaceRoot(plan.NoSlot, root, rootfs),
			plan.NewMount(root, plan.FS{Type: "proc", Target: "/proc", Source: "proc"}), plan.PivotRoot(root, noPivot))
		c := &container{Plan: p}
		c.shell("ls /; ls .; wc -l < /proc/self/mounts")
		par := newParent(t, p)
		const names = "bin\ndev\netc\nproc\nsecret\nsys\ntmp\n"
		if out := par.ran(par.run()); !strings.HasPrefix(out, names+names) || !noPivot && out != names+names+"2\n" {
			t.Errorf("no pivot %v: output:\n%s", noPivot, out)
		}
	}
}
