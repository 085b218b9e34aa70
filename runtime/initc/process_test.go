package initc_test

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// bare is a plan that stays in the host's file system.
func bare(ops ...plan.Op) *plan.Plan {
	p := plan.New()
	p.Add(ops...)
	return p
}

func shell(script string) plan.Op {
	return plan.Execute([]string{"/bin/busybox"}, []string{"busybox", "sh", "-c", script}, nil, 0)
}

// TestTerminal: the master crosses the barrier, the program has the slave everywhere.
func TestTerminal(t *testing.T) {
	needRoot(t)
	c := newContainer(newRootfs(t)).mounts()
	master := c.NewSlot("master")
	c.Add(
		plan.Bare(plan.Setsid),
		plan.OpenConsole(master, 100, 40, 7, true),
		plan.Meet("console", plan.ParentWaits, master, 1),
		plan.PivotRoot(c.root, false),
	)
	c.shell("stty size; tty; stat -c %u /dev/console; stat -c %t:%T /dev/console /dev/pts/0; exec 3<>/dev/tty && echo own >&3; ls /proc/self/fd | tr '\\n' ' '; test -t 2 && echo three")
	p := newParent(t, c.Plan)
	p.start()
	p.serve()
	if len(p.got) != 1 {
		t.Fatalf("%d descriptors crossed", len(p.got))
	}
	out, _ := io.ReadAll(p.got[0]) // ends with EIO when the last slave is closed
	p.ran(p.wait())
	want := "40 100\r\n/dev/console\r\n7\r\n88:0\r\n88:0\r\nown\r\n0 1 2 3 4 three\r\n"
	if got := strings.ReplaceAll(string(out), "/dev/pts/0", "/dev/console"); got != want {
		t.Errorf("terminal printed\n%q, want\n%q", got, want)
	}
}

// TestBarrierCarriesDescriptors both ways, more than one message can hold, over slots that were empty or not.
func TestBarrierCarriesDescriptors(t *testing.T) {
	const n = 300
	p := plan.New()
	first := p.NewSlot("0")
	for i := 1; i < n; i++ {
		p.NewSlot(strconv.Itoa(i))
	}
	p.Add(plan.Meet("in", plan.InitWaits, first, n), plan.Meet("out", plan.ParentWaits, first, n), plan.Bare(plan.Exit))
	par := newParent(t, p)
	par.flags = 0
	par.slots[first+2] = memfd(t, "replaced", nil)
	var sent []*os.File
	for i := range n {
		sent = append(sent, memfd(t, "sent", []byte(strconv.Itoa(i))))
	}
	par.meet = func(*plan.Op, int) ([]*os.File, uint32) { return sent, 0 }
	par.ran(par.run())
	if len(par.got) != n {
		t.Fatalf("%d descriptors came back, want %d", len(par.got), n)
	}
	for i, f := range par.got {
		b := make([]byte, 8)
		m, _ := f.ReadAt(b, 0)
		if string(b[:m]) != strconv.Itoa(i) {
			t.Fatalf("slot %d came back as %q", i, b[:m])
		}
		f.Close()
		sent[i].Close()
	}
}

// TestForkStays: the first process leaves with status 0, the second is a sibling in the new PID namespace.
// TestUserNamespace: an unprivileged root with its own mounts; the tree is cloned by the parent in the
// container's mount namespace.
// cloneInside clones a directory in the mount namespace of a process, on a thread that is not used again.
// TestHooks: the state comes on standard input to each, and what goes wrong is told apart.
func TestHooks(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		name, script string
		path         string
		timeout      uint64
		op           int
		errs         syscall.Errno
		status       uint32
	}{
		{"good", "cat; ls /proc/self/fd | tr '\\n' ' '; echo $A", "/bin/busybox", 5, -1, 0, 0},
		{"exit status", "exit 3", "/bin/busybox", 5, 1, unix.ECHILD, 3 << 8},
		{"timeout", "sleep 10", "/bin/busybox", 1, 1, unix.ETIME, 0},
		{"killed", "kill -9 $$", "/bin/busybox", 0, 1, unix.ECHILD, 9},
		{"missing", "", "/none", 0, 1, unix.ENOENT, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := plan.New()
			state := p.NewSlot("state")
			args := []string{"busybox", "sh", "-c", tc.script}
			p.Add(plan.WriteState(state, "created", nil),
				plan.RunHook(plan.Init, state, "createContainer", tc.path, args, []string{"A=b"}, tc.timeout),
				plan.RunHook(plan.Init, state, "createContainer", tc.path, args, nil, tc.timeout),
				shell("echo ran"))
			par := newParent(t, p)
			par.flags = unix.CLONE_NEWNS
			par.slots[state] = memfd(t, "state", []byte("{}\n"))
			par.start()
			par.serve()
			status := par.page.Load32(plan.ProgressAtStatus)
			r := par.wait()
			if r.Op != tc.op || r.Errno != tc.errs || status != tc.status {
				t.Errorf("op %d, %v, status %#x; want op %d, %v, %#x", r.Op, r.Errno, status, tc.op, tc.errs, tc.status)
			}
			if want := "{}\n0 1 2 3 b\n{}\n0 1 2 3 \nran\n"; tc.op < 0 && r.Out != want {
				t.Errorf("output %q, want %q", r.Out, want)
			}
		})
	}
}

// TestGate: create waits for start, whoever writes the byte and whenever; a writer that leaves is the end.
func TestGate(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags int
		write string
		op    int
	}{{"start", unix.O_RDONLY | unix.O_NONBLOCK, "x", -1}, {"start, read-write", unix.O_RDWR, "x", -1}, {"abandoned", unix.O_RDONLY | unix.O_NONBLOCK, "", 0}} {
		t.Run(tc.name, func(t *testing.T) {
			p := plan.New()
			gate := p.NewSlot("gate")
			p.Add(plan.WaitGate(gate), plan.Bare(plan.Exit))
			p.Ops[0].Slot[0] = gate
			path := filepath.Join(t.TempDir(), "gate")
			must(t, unix.Mkfifo(path, 0o600))
			fd, err := unix.Open(path, tc.flags|unix.O_CLOEXEC, 0)
			must(t, err)
			par := newParent(t, filled(p, gate))
			par.flags = 0
			par.slots[gate] = os.NewFile(uintptr(fd), path)
			par.start()
			time.Sleep(20 * time.Millisecond)
			w, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			if par.page.Load32(plan.ProgressAtOp) != 1 {
				t.Error("init did not wait")
			}
			_, err = w.WriteString(tc.write)
			must(t, err)
			w.Close()
			par.serve()
			if r := par.wait(); r.Op >= 0 != (tc.op >= 0) {
				t.Errorf("op %d, %v", r.Op, r.Errno)
			}
		})
	}
}

// filled puts an op in front that says that the parent fills the slot.
func filled(p *plan.Plan, s plan.Slot) *plan.Plan {
	p.Ops = append([]plan.Op{plan.Open(s, os.DevNull, 0, plan.InHost)}, p.Ops...)
	return p
}

// TestDescriptorsAtExec: the program has its streams and the preserved descriptors, and nothing of ours.
func TestDescriptorsAtExec(t *testing.T) {
	needRoot(t)
	for _, n := range []int{0, 1, 5} {
		p := plan.New()
		other := p.NewSlot("other")
		p.NewSlot("never filled")
		var kept []plan.Slot
		for i := range n {
			kept = append(kept, p.NewSlot("kept "+strconv.Itoa(i)))
		}
		p.Add(plan.Open(other, "/", unix.O_RDONLY, plan.InHost),
			plan.Execute([]string{"/bin/busybox"}, []string{"busybox", "sh", "-c", "for i in 3 4 5 6 7 8 9 10 11 12; do cat <&$i; done 2> /dev/null; exec /bin/busybox ls /proc/self/fd"}, nil, uint(n)))
		par := newParent(t, p)
		par.flags = 0
		want := ""
		for i, s := range kept {
			f := memfd(t, "kept", []byte{byte('a' + i)})
			par.slots[s] = f
			want += string(rune('a' + i))
		}
		for fd := range 3 + n + 1 { // the last one is that of the directory listed
			want += strconv.Itoa(fd) + "\n"
		}
		if out := par.ran(par.run()); !sameFields(out, want) {
			t.Errorf("preserve %d: output %q, want %q", n, out, want)
		}
	}
}

// sameFields compares without regard to order (ls sorts 10 before 2) and with each field once.
func sameFields(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// TestStdio puts a slot on a standard stream.
func TestStdio(t *testing.T) {
	needRoot(t)
	p := plan.New()
	input := p.NewSlot("stdin")
	p.Add(plan.Open(input, "/etc/hostname", 0, plan.InHost), plan.SetStdio(input, 0), shell("cat"))
	par := newParent(t, p)
	par.flags = 0
	want, err := os.ReadFile("/etc/hostname")
	must(t, err)
	if out := par.ran(par.run()); out != string(want) {
		t.Errorf("output %q, want %q", out, want)
	}
}

// TestSignalsAreRestored: what the parent ignored or blocked is not passed on.
func TestSignalsAreRestored(t *testing.T) {
	needRoot(t)
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	defer signal.Reset(unix.SIGPIPE, unix.SIGHUP)
	par := newParent(t, bare(shell("grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status | cut -f2")))
	par.flags = 0
	zero := "0000000000000000\n"
	if out := par.ran(par.run()); out != zero+zero+zero {
		t.Errorf("blocked, ignored, caught:\n%s", out)
	}
}

// TestPause: PID 1 of a namespace reaps what is orphaned in it and leaves at SIGTERM.
// TestExecJoins: a second process enters a running container and sees its world, with a terminal of its own.
// TestLimits: what belongs to the process and has no file system.
func TestLimits(t *testing.T) {
	needRoot(t)
	p := bare(
		plan.SetOOMScoreAdj(777),
		plan.Text(plan.Domainname, "domain"),
		plan.Text(plan.Sysctl, "kernel/domainname", "other"),
		plan.Limit(4, 0, 1<<20), // core
		plan.Numbers(plan.Personality, 0x0008),
		plan.Numbers(plan.IOPriority, 2<<13|6),
		plan.Numbers(plan.Scheduler, 3 /* SCHED_BATCH */, 0, 5),
		plan.SetAffinity("0", []byte{1}),
		plan.SetMemoryPolicy(3|plan.MemStaticNodes, "0", []byte{1, 0, 0, 0, 0, 0, 0, 0}), // MPOL_INTERLEAVE
		plan.SetCaps(0, 0, 0, 0),
		shell("cat /proc/self/oom_score_adj /proc/sys/kernel/domainname /proc/self/personality; ulimit -c; ionice; nice; chrt -p $$; grep Cpus_allowed_list /proc/self/status; grep -c interleave /proc/self/numa_maps"))
	par := newParent(t, p)
	par.flags = unix.CLONE_NEWUTS
	out := par.ran(par.run())
	for _, want := range []string{"777\nother\n00000008\n0\n", "best-effort: prio 6\n5\n", "SCHED_BATCH", "Cpus_allowed_list:\t0\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if strings.HasSuffix(out, "\n0\n") {
		t.Errorf("no mapping is interleaved:\n%s", out)
	}
	for _, op := range []plan.Op{plan.SetAffinity("8000", make([]byte, 1024)), plan.SetMemoryPolicy(2, "", nil)} {
		par := newParent(t, bare(op, shell("true")))
		par.flags = 0
		if r := par.run(); r.Op != 0 || r.Errno != unix.EINVAL {
			t.Errorf("%s: op %d, %v", op.Kind, r.Op, r.Errno)
		}
	}
}

// TestSeccompNotify: the notify descriptor crosses the barrier that follows.
func TestSeccompNotify(t *testing.T) {
	needRoot(t)
	p := plan.New()
	notify := p.NewSlot("notify")
	p.Add(plan.LoadSeccomp(notify, "listener", denySyscall(unix.SYS_UNAME), unix.SECCOMP_FILTER_FLAG_NEW_LISTENER),
		plan.Meet("notify", plan.ParentWaits, notify, 1), plan.Bare(plan.Exit))
	par := newParent(t, p)
	par.flags = 0
	par.ran(par.run())
	if len(par.got) != 1 {
		t.Fatalf("%d descriptors crossed", len(par.got))
	}
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", par.got[0].Fd())); err != nil || name != "anon_inode:seccomp notify" {
		t.Errorf("what crossed is %q, %v", name, err)
	}
	par.got[0].Close()
}

// TestNobodyLooksIn: init cannot be traced or read by what runs in its namespaces.
func TestNobodyLooksIn(t *testing.T) {
	needRoot(t)
	p := plan.New()
	gate := p.NewSlot("gate")
	p.Add(plan.SetUser(1000, 1000, nil, nil), plan.WaitGate(gate), plan.Bare(plan.Exit))
	filled(p, gate)
	par := newParent(t, p)
	par.flags = 0
	r, w, err := os.Pipe()
	must(t, err)
	par.slots[gate] = r
	par.start()
	for par.page.Load32(plan.ProgressAtOp) != 2 {
		time.Sleep(time.Millisecond)
	}
	var st unix.Stat_t
	must(t, unix.Stat(fmt.Sprintf("/proc/%d/mem", par.process.Pid), &st))
	if st.Uid != 0 {
		t.Errorf("/proc/PID/mem belongs to %d: the process is dumpable", st.Uid)
	}
	w.WriteString("x")
	w.Close()
	par.ran(par.wait())
}
