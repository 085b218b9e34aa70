package initc_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
)

func TestForkStays(t *testing.T) {
	needRoot(t)
	p := bare(plan.UnshareNS(plan.NewPID|plan.NewTime), plan.Text(plan.TimeOffset, "boottime 1000000 0\n"), plan.Bare(plan.Fork), shell("echo $$; cut -d. -f1 /proc/uptime"))
	par := newParent(t, p)
	par.flags = unix.CLONE_NEWUTS
	out := strings.Fields(par.ran(par.run()))
	if len(out) != 2 || out[0] != "1" {
		t.Fatalf("output %q; want pid 1", out)
	}
	if up, _ := strconv.Atoi(out[1]); up < 1000000 {
		t.Errorf("uptime %d; the time namespace was not entered", up)
	}
}

func TestUserNamespace(t *testing.T) {
	needRoot(t)
	rootfs := newRootfs(t)
	must(t, filepath.WalkDir(rootfs, func(path string, _ os.DirEntry, err error) error {
		must(t, err)
		return os.Lchown(path, 100000, 100000)
	}))
	for dir := rootfs; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) { // the path to it must be open to the mapped root
		must(t, os.Chmod(dir, 0o755))
	}
	c := &container{Plan: plan.New()}
	c.tree, c.root = c.NewSlot("rootfs"), c.NewSlot("root")
	c.Add(
		plan.MakeProcess(0),
		plan.SetOOMScoreAdj(500),
		plan.UnshareNS(plan.NewUser),
		plan.Meet("unshared", plan.ParentWaits, plan.NoSlot, 0),
		plan.Meet("mapped", plan.InitWaits, plan.NoSlot, 0),
		plan.Bare(plan.MapRoot),
		plan.UnshareNS(plan.NewNS|plan.NewPID|plan.NewUTS|plan.NewIPC|plan.NewNet),
		plan.Bare(plan.Fork),
		plan.Meet("forked", plan.ParentWaits, plan.NoSlot, 0),
		plan.Meet("trees", plan.InitWaits, c.tree, 1),
		plan.SetPropagation("/", plan.PropSlave|plan.PropRec),
	)
	// The engine fills the tree's slot at the barrier; Check wants somebody to have done it.
	c.Ops = append([]plan.Op{plan.CloneTree(plan.Parent, c.tree, plan.Tree{Source: rootfs, In: plan.InContainer, UserNS: plan.NoSlot})}, c.Ops...)
	c.Add(plan.PlaceRoot(c.tree, c.root, rootfs),
		plan.NewMount(c.root, plan.FS{Type: "proc", Target: "/proc", Source: "proc"}),
		plan.NewMount(c.root, plan.FS{Type: "sysfs", Target: "/sys", Source: "sysfs", Attrs: plan.AttrRdonly}),
		plan.NewMount(c.root, plan.FS{Type: "tmpfs", Target: "/dev", Source: "tmpfs", Options: []string{"mode", "755"}}),
		plan.Bind(c.root, plan.BindMount{Tree: plan.NoSlot, Source: "/dev/null", Target: "/dev/null", Create: plan.CreateLike}),
		plan.PivotRoot(c.root, false), plan.Hide(c.root, "/etc/shadow"), plan.Hide(c.root, "/proc/timer_list"), plan.Hide(c.root, "/secret"), plan.Lock(c.root, "/proc/sys"),
		plan.SetUser(0, 0, nil, nil))
	c.shell("id -u; cut -c1-40 /proc/self/uid_map | tr -s ' '; cat /proc/self/oom_score_adj; wc -c < /etc/shadow; ls /secret | wc -l; echo x > /dev/null && echo null; touch /tmp/mine && stat -c %u /tmp/mine; hostname; ls -d /proc/[0-9]*")
	p := newParent(t, c.Plan)
	p.flags = 0
	p.slots[c.tree] = memfd(t, "placeholder", nil)
	var tree *os.File
	p.meet = func(op *plan.Op, pid int) ([]*os.File, uint32) {
		if op.Str[0] == "mapped" {
			must(t, os.WriteFile(fmt.Sprintf("/proc/%d/uid_map", pid), []byte("0 100000 65536"), 0))
			must(t, os.WriteFile(fmt.Sprintf("/proc/%d/gid_map", pid), []byte("0 100000 65536"), 0))
			return nil, 0
		}
		forked := int(p.page.Load32(plan.ProgressAtPID))
		if forked == 0 {
			t.Fatal("the fork has met its parent, and its pid is not there")
		}
		tree = cloneInside(t, forked, rootfs)
		return []*os.File{tree}, 0
	}
	out := p.ran(p.run())
	tree.Close()
	host, _ := os.Hostname()
	if want := "0\n 0 100000 65536\n500\n0\n0\nnull\n0\n" + host + "\n/proc/1\n"; !strings.HasPrefix(out, want) {
		t.Errorf("output:\n%swant:\n%s", out, want)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(rootfs, "tmp/mine"), &st))
	if st.Uid != 100000 {
		t.Errorf("the file of the container's root belongs to %d", st.Uid)
	}
}

func cloneInside(t *testing.T, pid int, path string) *os.File {
	t.Helper()
	type answer struct {
		fd  int
		err error
	}
	c := make(chan answer)
	linux.GoThread(func() {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			c <- answer{-1, err}
			return
		}
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNS)
			unix.Close(ns)
		}
		if err != nil {
			c <- answer{-1, err}
			return
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		c <- answer{fd, err}
	})
	a := <-c
	must(t, a.err)
	return os.NewFile(uintptr(a.fd), path)
}

func TestPause(t *testing.T) {
	needRoot(t)
	par := newParent(t, bare(plan.Bare(plan.Pause)))
	par.flags = unix.CLONE_NEWPID
	par.start()
	par.serve() // end of file: the socket is closed
	pid := par.process.Pid
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(comm) != "cri-mini-pause\n" {
		t.Errorf("comm %q, %v", comm, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil || len(fds) != 3 {
		t.Errorf("open descriptors %v, %v; want the three streams", fds, err)
	}

	// An exec joins the namespace and leaves an orphan behind, which dies soon.
	p := plan.New()
	ns := p.NewSlot("pid namespace")
	p.Add(plan.Open(ns, fmt.Sprintf("/proc/%d/ns/pid", pid), 0, plan.InHost), plan.JoinNS(ns, plan.NewPID), plan.Bare(plan.Fork), shell("(usleep 10000 &) ; echo $$"))
	exec := newParent(t, p)
	exec.flags = 0
	if out := exec.ran(exec.run()); out != "2\n" {
		t.Errorf("pid of the exec is %q", out)
	}
	time.Sleep(50 * time.Millisecond)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil || len(bytes.TrimSpace(children)) > 0 {
		t.Errorf("children %q, %v: the orphan was not reaped", children, err)
	}
	must(t, par.process.Signal(unix.SIGTERM))
	if r := par.wait(); r.Status != 0 {
		t.Errorf("status %#x after SIGTERM", r.Status)
	}
}

func TestExecJoins(t *testing.T) {
	needRoot(t)
	c := newContainer(newRootfs(t)).mounts()
	gate := c.NewSlot("gate")
	c.Add(plan.Text(plan.Hostname, "joined"), plan.PivotRoot(c.root, false), plan.WaitGate(gate), plan.Bare(plan.Exit))
	filled(c.Plan, gate)
	p := newParent(t, c.Plan)
	r, w, err := os.Pipe()
	must(t, err)
	p.slots[gate] = r
	p.start()
	p.reaches(len(c.Ops) - 2)

	e := plan.New()
	target, group, master := e.NewSlot("pidfd"), e.NewSlot("group"), e.NewSlot("master")
	e.Add(plan.Open(target, "pidfd", 0, plan.InHost), plan.Open(group, "tasks", unix.O_WRONLY, plan.InHost),
		plan.JoinCgroup(group, "pids"),
		plan.JoinNS(target, plan.NewNS|plan.NewPID|plan.NewUTS|plan.NewIPC|plan.NewNet),
		plan.Bare(plan.Fork), plan.Bare(plan.Setsid), plan.OpenConsole(master, 80, 24, 0, false), plan.Meet("console", plan.ParentWaits, master, 1),
		plan.Text(plan.Chdir, "/tmp"), plan.SetUser(0, 0, nil, nil), shell("hostname; pwd; ls /; tty; echo $$"))
	exec := newParent(t, e)
	exec.flags = 0
	pidfd, err := unix.PidfdOpen(p.process.Pid, 0)
	must(t, err)
	exec.slots[target] = os.NewFile(uintptr(pidfd), "pidfd")
	tasks := filepath.Join(t.TempDir(), "tasks")
	must(t, os.WriteFile(tasks, nil, 0o600))
	exec.slots[group], err = os.OpenFile(tasks, os.O_WRONLY, 0)
	must(t, err)
	exec.start()
	exec.serve()
	out, _ := io.ReadAll(exec.got[0])
	exec.ran(exec.wait())
	if want := "joined\r\n/tmp\r\nbin     dev     etc     proc    secret  sys     tmp\r\n/dev/pts/0\r\n2\r\n"; string(out) != want {
		t.Errorf("output %q, want %q", out, want)
	}
	if b, _ := os.ReadFile(tasks); string(b) != "0" {
		t.Errorf("join file got %q", b)
	}
	_, err = w.WriteString("x")
	must(t, err)
	w.Close()
	p.ran(p.wait())
}
