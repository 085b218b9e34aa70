package initc_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

// BenchmarkStart starts default containers. init-µs is from init's first op to exec, as the parent sees it;
// the rest of an iteration is the clone, the exec of init, and the container's end.
func BenchmarkStart(b *testing.B) {
	needRoot(b)
	rootfs := newRootfs(b)
	measure(b, func() *parent {
		c := newContainer(rootfs)
		c.Add(plan.Meet("first", plan.ParentWaits, plan.NoSlot, 0))
		c.mounts().finish("exit 0")
		return newParent(b, c.Plan)
	})
}

// BenchmarkExec is the init side of an exec without namespaces to join: the floor.
func BenchmarkExec(b *testing.B) {
	needRoot(b)
	measure(b, func() *parent {
		p := newParent(b, bare(plan.Meet("first", plan.ParentWaits, plan.NoSlot, 0), plan.SetBounding(0xff), plan.SetUser(1000, 1000, nil, nil), plan.SetCaps(0, 0, 0, 0), shell("exit 0")))
		p.flags = 0
		return p
	})
}

func measure(b *testing.B, next func() *parent) {
	var inside time.Duration
	n := 0
	for b.Loop() {
		p := next()
		p.start()
		if _, _, err := p.receive(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if m, _, err := p.receive(); err == nil {
			b.Fatalf("message %v", m)
		}
		inside += time.Since(began)
		n++
		if r := p.wait(); r.Op >= 0 || r.Status != 0 {
			b.Fatalf("op %d, %v, status %#x: %s", r.Op, r.Errno, uint32(r.Status), r.Out)
		}
	}
	b.ReportMetric(float64(inside.Microseconds())/float64(n), "init-µs/op")
}

// TestMemory: an init that has made a whole default container has few pages of its own, so that it fits
// below the smallest memory limit and many can start at once.
func TestMemory(t *testing.T) {
	needRoot(t)
	c := newContainer(newRootfs(t)).mounts().finish("true")
	gate := c.NewSlot("gate")
	filled(c.Plan, gate)
	last := len(c.Ops) - 1
	c.Ops = append(c.Ops[:last:last], plan.WaitGate(gate), c.Ops[last])
	p := newParent(t, c.Plan)
	r, w, err := os.Pipe()
	must(t, err)
	p.slots[gate] = r
	p.start()
	p.reaches(last)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.process.Pid))
	must(t, err)
	kib := func(field string) int {
		m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in status", field)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	t.Logf("peak %d KiB resident, of it anonymous %d, file %d", kib("VmHWM"), kib("RssAnon"), kib("RssFile"))
	if kib("RssAnon") > 256 {
		t.Errorf("%d KiB of anonymous memory; init allocates nothing, so what is it?", kib("RssAnon"))
	}
	w.WriteString("x")
	w.Close()
	p.ran(p.wait())
}

// TestSmallestLimit: joined to a group of 512 KiB last, just before exec, init gets as far as the program.
func TestSmallestLimit(t *testing.T) {
	needRoot(t)
	const base = "/sys/fs/cgroup/memory"
	dir := fmt.Sprintf("%s/cri-mini-initc-test-%d", base, os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs a v1 memory hierarchy: %v", err)
	}
	defer func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	}()
	must(t, os.WriteFile(dir+"/memory.limit_in_bytes", []byte("524288"), 0))
	c := newContainer(newRootfs(t)).mounts()
	group := c.NewSlot("memory")
	c.Ops = append([]plan.Op{plan.Open(group, dir+"/tasks", unix.O_WRONLY, plan.InHost)}, c.Ops...)
	c.finish("echo here")
	last := len(c.Ops) - 1
	c.Ops = append(c.Ops[:last:last], plan.JoinCgroup(group, "memory"), c.Ops[last])
	p := newParent(t, c.Plan)
	if out := p.ran(p.run()); out != "here\n" {
		t.Errorf("output %q", out)
	}
}
