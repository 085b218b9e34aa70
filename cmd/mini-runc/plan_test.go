package main

import (
	"os"
	"strconv"

	"strings"
	"testing"
)

// TestPlan prints what would be done and does nothing of it.
func TestPlan(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	for _, args := range [][]string{{"plan"}, {"plan", b.dir}, {"plan", "--bundle", "."}} {
		out := b.ok(args...)
		for _, line := range []string{"  0 parent cgroup_create", "init   pivot", "both   barrier         name=created", "init   exec            candidates="} {
			if !strings.Contains(out, line) {
				t.Errorf("%q lacks %q:\n%s", args, line, out)
			}
		}
	}
	b.spec.Process.Cwd = "x"
	b.write()
	b.fails(`process.cwd: "x" is relative`, "plan")
	if _, err := os.Stat(b.root); err == nil {
		t.Error("plan has made the root directory")
	}
}

// TestCrash kills a command before and after each record of its journal. Whatever is left then, delete --force
// finds and undoes.
func TestCrash(t *testing.T) {
	for _, command := range []string{"create x", "run -d x", "delete -f x"} {
		t.Run(command, func(t *testing.T) {
			b := newBundle(t, "exec busybox sleep 1000")
			b.spec.Hooks = nil
			b.write()
			points := 0
			for n := 1; n < 100; n++ {
				survived := false
				for _, when := range []string{"before", "after"} {
					if strings.HasPrefix(command, "delete") {
						b.ok("run", "-d", "x")
					}
					cmd := b.command(strings.Fields(command)...)
					cmd.Env = append(os.Environ(), "CRI_MINI_CRASH="+when+":"+strconv.Itoa(n))
					r := b.call(cmd)
					survived = r.code == 0
					if !survived && r.code != -1 {
						t.Fatalf("%s record %d: %+v", when, n, r)
					}
					b.ok("delete", "--force", "x")
					b.nothingLeft()
					if survived {
						break
					}
					points++
				}
				if survived {
					break
				}
			}
			t.Logf("%d points", points)
			if points < 4 {
				t.Errorf("only %d points to crash at", points)
			}
		})
	}

}
