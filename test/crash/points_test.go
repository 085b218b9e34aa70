package crash

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// workers is how many machines share the crash points.
const workers = 2

// shardEnv says which of them this one is.
const shardEnv = "CRI_MINI_TEST_CRASH_SHARD"

// settled is how long the kernel and the monitors have to take away what was let go.
const settled = 10 * time.Second

// TestCrashPoints kills the daemon before and after every journal record of a pod's life, starts it again and goes on
// as kubelet does. The end must be that of a walk without a crash, with nothing left.
func TestCrashPoints(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		runShards(t)
		return
	}
	n := private(t)
	points, want := n.count()
	shard := 0
	fmt.Sscan(os.Getenv(shardEnv), &shard)
	began, kills, deaths := time.Now(), 0, 0
	for i, what := range points {
		for _, when := range []string{"before", "after"} {
			if i%workers != shard {
				continue
			}
			kills++
			name := fmt.Sprintf("%s:%d", when, i+1)
			t.Run(name, func(t *testing.T) {
				n.on(t).crash(name, what, i, want)
				deaths += n.crashes
			})
		}
	}
	n.on(t)
	t.Logf("= %d records, %d kills, %d daemons died, %.1f s", len(points), kills, deaths, time.Since(began).Seconds())
}

// runShards runs the points on several machines and sums up.
func runShards(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces, cgroups and containers")
	}
	t.Parallel()
	began := time.Now()
	var wg sync.WaitGroup
	outs, oks := make([]string, workers), make([]bool, workers)
	for i := range workers {
		wg.Go(func() { outs[i], oks[i] = runInside(t, fmt.Sprintf("%s=%d", shardEnv, i)) })
	}
	wg.Wait()
	records, kills, deaths := 0, 0, 0
	for i := range workers {
		report(t, outs[i], oks[i])
		var k, d int
		if _, line, ok := strings.Cut(outs[i], ": = "); ok {
			fmt.Sscanf(line, "%d records, %d kills, %d daemons died", &records, &k, &d)
		}
		kills, deaths = kills+k, deaths+d
	}
	verdict := "all clean"
	if t.Failed() {
		verdict = "NOT all clean"
	}
	fmt.Printf("crash points: %d records, %d kills (and %d more in the recovery), %s, %.0f s\n", records, kills, deaths-kills, verdict, time.Since(began).Seconds())
}

// count walks without a crash: it gives the records that are written, and what the machine looks like afterwards.
func (n *node) count() (points, want []string) {
	n.t.Helper()
	n.start()
	n.walk() // the first makes what stays: the bridge, the tables
	n.mustBeEmpty()
	want = n.steady()
	n.stop()
	file := filepath.Join(n.disk, "records")
	n.start("CRI_MINI_CRASH_COUNT=" + file)
	n.walk()
	if !n.mustLookLike(want, settled) {
		n.t.Fatal("a walk without a crash is not clean")
	}
	n.stop()
	f, err := os.Open(file)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		_, what, _ := strings.Cut(s.Text(), " ") // the number
		_, what, _ = strings.Cut(what, " ")      // the pod
		points = append(points, what)
	}
	if len(points) == 0 {
		n.t.Fatal("the walk writes no record")
	}
	return points, want
}

// crash walks with a daemon that dies at one point. After "after" the next daemon dies too, a few records later,
// wherever it is: in its recovery or behind it.
func (n *node) crash(point, what string, i int, want []string) {
	n.t.Helper()
	n.crashes, n.env = 0, nil
	if strings.HasPrefix(point, "after") {
		n.env = []string{fmt.Sprintf("CRI_MINI_CRASH=%s:%d", []string{"before", "after"}[i/4%2], 1+i%4)}
	}
	defer func() {
		if n.t.Failed() {
			n.t.Logf("the daemon was killed %s, which is: %s\n%s", point, what, again(n.t))
			n.t.Logf("its log ends with:\n%s", lastLines(n.daemonLog(), 40))
			n.wipe()
		}
	}()
	n.start("CRI_MINI_CRASH=" + point)
	n.walk()
	if n.crashes == 0 {
		n.t.Error("the walk did not come to this point")
	}
	n.mustLookLike(want, settled)
	n.stop()
}
