package initc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/internal/linux"
	"github.com/cri-mini/cri-mini/runtime/plan"
	"github.com/cri-mini/cri-mini/test/testbed"
)

// helper is the static cri-mini-init that the tests run, built once.
var helper string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "cri-mini-initc-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	helper = filepath.Join(dir, "cri-mini-init")
	code := 1
	if err := testbed.Programs(dir, "cri-mini-init"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes namespaces and mounts: must be root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox: apt-get install busybox-static")
	}
}

// newRootfs makes a root file system of one static busybox.
func newRootfs(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "secret"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	program, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/shadow"), []byte("hidden\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "secret/key"), []byte("hidden\n"), 0o644))
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// parent is the other side: it does for a plan what the engine does, as far as the tests need it.
type parent struct {
	t     testing.TB
	plan  *plan.Plan
	slots map[plan.Slot]*os.File
	flags uintptr // namespaces of the clone
	// meet answers a barrier at which init waits: the descriptors that cross, and a status.
	meet func(op *plan.Op, pid int) ([]*os.File, uint32)
	// got is what crossed from init.
	got []*os.File

	process *os.Process
	page    *linux.SharedPage
	sync    *os.File
	out     *os.File
}

// result is how an init ended. Op is -1 when the program ran.
type result struct {
	Out    string
	Status syscall.WaitStatus
	Op     int
	Errno  syscall.Errno
}

func newParent(t testing.TB, p *plan.Plan) *parent {
	return &parent{t: t, plan: p, slots: map[plan.Slot]*os.File{}, flags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
}

func memfd(t testing.TB, name string, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	must(t, err)
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteAt(content, 0)
	must(t, err)
	return f
}

func socketpair(t testing.TB) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	return os.NewFile(uintptr(fds[0]), "sync"), os.NewFile(uintptr(fds[1]), "sync of init")
}

// prepare carries out the parent's ops of these two kinds.
func (p *parent) prepare() {
	for _, op := range p.plan.Ops {
		if op.Side != plan.Parent || p.slots[op.Slot[0]] != nil {
			continue
		}
		switch op.Kind {
		case plan.OpenTree:
			flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
			if op.Num[0]&plan.BindRecursive != 0 {
				flags |= unix.AT_RECURSIVE
			}
			fd, err := unix.OpenTree(unix.AT_FDCWD, op.Str[0], flags)
			if op.Num[0]&plan.BindOptional != 0 && errors.Is(err, unix.ENOENT) {
				continue
			}
			must(p.t, err)
			p.slots[op.Slot[0]] = os.NewFile(uintptr(fd), op.Str[0])
		case plan.OpenFile:
			fd, err := unix.Open(op.Str[0], int(op.Num[0])|unix.O_CLOEXEC, 0)
			must(p.t, err)
			p.slots[op.Slot[0]] = os.NewFile(uintptr(fd), op.Str[0])
		}
	}
}

// start clones init with the slots filled so far.
func (p *parent) start() {
	p.t.Helper()
	p.prepare()
	flat, err := p.plan.Encode()
	must(p.t, err)
	p.startRaw(flat)
}

func (p *parent) startRaw(flat []byte) {
	p.t.Helper()
	var theirs *os.File
	var err error
	p.page, err = linux.NewSharedPage("progress")
	must(p.t, err)
	p.sync, theirs = socketpair(p.t)
	p.out = memfd(p.t, "output", nil)
	p.slots[plan.SlotPlan] = memfd(p.t, "plan", flat)
	p.slots[plan.SlotProgress] = p.page.File()
	p.slots[plan.SlotSync] = theirs
	null, err := os.Open(os.DevNull)
	must(p.t, err)
	files := []*os.File{null, p.out, p.out}
	for i := range p.plan.Slots {
		files = append(files, p.slots[plan.Slot(i)])
	}
	p.process, err = os.StartProcess(helper, []string{"cri-mini-init", "init"},
		&os.ProcAttr{Files: files, Env: []string{}, Sys: &syscall.SysProcAttr{Cloneflags: p.flags}})
	must(p.t, err)
	null.Close()
	for i, f := range p.slots {
		if i != plan.SlotProgress {
			f.Close()
		}
	}
}

type message struct{ Index, Status uint32 }

func (m message) bytes() []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, m)
	return b
}

// receive reads one message of a barrier; io.EOF means that init has execed or died.
func (p *parent) receive() (message, []*os.File, error) {
	b, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(253*4))
	n, oobn, _, _, err := unix.Recvmsg(int(p.sync.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return message{}, nil, err
	}
	if n == 0 {
		return message{}, nil, io.EOF
	}
	var m message
	if _, err := binary.Decode(b[:n], binary.LittleEndian, &m); err != nil || n != 8 {
		return m, nil, fmt.Errorf("message of %d bytes", n)
	}
	var files []*os.File
	controls, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return m, nil, err
	}
	for _, c := range controls {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			return m, nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "crossed"))
		}
	}
	return m, files, nil
}

// serve meets init at every barrier until the program runs or init is dead.
func (p *parent) serve() {
	p.t.Helper()
	for i := range p.plan.Ops {
		op := &p.plan.Ops[i]
		if op.Kind != plan.Barrier {
			continue
		}
		if op.Num[0] == plan.InitWaits {
			p.answer(i, op)
			continue
		}
		for want := int(op.Num[2]); ; {
			m, files, err := p.receive()
			if errors.Is(err, io.EOF) {
				return
			}
			must(p.t, err)
			if int(m.Index) != i {
				p.t.Fatalf("barrier %d: message of op %d", i, m.Index)
			}
			p.got = append(p.got, files...)
			if want -= len(files); want <= 0 {
				break
			}
		}
	}
	if m, _, err := p.receive(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("after the last barrier: message %v, error %v; want end of file", m, err)
	}
}

func (p *parent) answer(i int, op *plan.Op) {
	files, status := []*os.File(nil), uint32(0)
	if p.meet != nil {
		files, status = p.meet(op, p.process.Pid)
	}
	for first := true; first || len(files) > 0; first = false {
		n := min(len(files), 128)
		var oob []byte
		if n > 0 {
			fds := make([]int, n)
			for j := range fds {
				fds[j] = int(files[j].Fd())
			}
			oob = unix.UnixRights(fds...)
		}
		// EPIPE: init is dead; wait says why.
		if err := unix.Sendmsg(int(p.sync.Fd()), message{uint32(i), status}.bytes(), oob, nil, unix.MSG_NOSIGNAL); err != nil && !errors.Is(err, unix.EPIPE) {
			must(p.t, err)
		}
		files = files[n:]
	}
}

// wait reaps init, or the process that it forked, and tells how it ended.
func (p *parent) wait() result {
	p.t.Helper()
	state, err := p.process.Wait()
	must(p.t, err)
	if pid := p.page.Load32(plan.ProgressAtPID); pid != 0 && state.Success() {
		child, err := os.FindProcess(int(pid))
		must(p.t, err)
		state, err = child.Wait()
		must(p.t, err)
	}
	r := result{Status: state.Sys().(syscall.WaitStatus), Op: -1}
	if e := p.page.Load32(plan.ProgressAtErrno); e != 0 {
		r.Op, r.Errno = int(p.page.Load32(plan.ProgressAtOp)), syscall.Errno(e)
	}
	var b bytes.Buffer
	_, err = io.Copy(&b, io.NewSectionReader(p.out, 0, 1<<20))
	must(p.t, err)
	r.Out = b.String()
	p.out.Close()
	p.page.Close()
	p.sync.Close()
	return r
}

// reaches waits until init is at an op.
func (p *parent) reaches(op int) {
	p.t.Helper()
	for limit := time.Now().Add(testbed.Limit(20 * time.Second)); p.page.Load32(plan.ProgressAtOp) != uint32(op); time.Sleep(time.Millisecond) {
		if e := p.page.Load32(plan.ProgressAtErrno); e != 0 || time.Now().After(limit) {
			p.process.Kill()
			at := int(p.page.Load32(plan.ProgressAtOp))
			p.t.Fatalf("init is at op %d %s: %v; want %d", at, p.plan.Describe(at), syscall.Errno(e), op)
		}
	}
}

// run is a whole life.
func (p *parent) run() result {
	p.t.Helper()
	done := make(chan struct{})
	timer := time.AfterFunc(testbed.Limit(20*time.Second), func() {
		select {
		case <-done:
		default:
			p.process.Kill()
		}
	})
	defer timer.Stop()
	p.start()
	p.serve()
	r := p.wait()
	close(done)
	return r
}

// ran fails the test unless the program ran and exited with status 0.
func (p *parent) ran(r result) string {
	p.t.Helper()
	if r.Op >= 0 {
		p.t.Fatalf("op %d %s: %v; output:\n%s", r.Op, p.plan.Describe(r.Op), r.Errno, r.Out)
	}
	if r.Status != 0 {
		p.t.Fatalf("status %#x, stopped at op %d; output:\n%s", uint32(r.Status), int(p.page.Load32(plan.ProgressAtOp)), r.Out)
	}
	return r.Out
}
