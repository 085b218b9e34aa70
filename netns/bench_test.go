package netns

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkBuiltin is one pod at a time: Attach into a fresh namespace, Detach,
// drop of the namespace and the wait for the veth's end.
func BenchmarkBuiltin(b *testing.B) {
	for _, v := range []struct {
		name  string
		ports []PortMapping
	}{
		{"plain", nil},
		{"hostport", []PortMapping{{ContainerPort: 80, HostPort: 8080}}},
	} {
		b.Run(v.name, func(b *testing.B) {
			n := network(b, host(b), nil)
			attach(b, n, "first") // makes the bridge
			var attachTime, detachTime, goneTime []time.Duration
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				id := fmt.Sprint("p", i)
				ns := newNS(b, id)
				att, err := n.Prepare(Request{PodID: id, NetnsPath: ns, Ports: v.ports})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				t0 := time.Now()
				if err := n.Attach(ctx, att); err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				if err := n.Detach(ctx, att); err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				dropNS(b, ns)
				if err := n.WaitGone(ctx, att); err != nil {
					b.Fatal(err)
				}
				attachTime = append(attachTime, t1.Sub(t0))
				detachTime = append(detachTime, t2.Sub(t1))
				goneTime = append(goneTime, time.Since(t2))
			}
			median := func(d []time.Duration) float64 {
				slices.Sort(d)
				return float64(d[len(d)/2].Microseconds())
			}
			b.ReportMetric(median(attachTime), "attach-p50-µs")
			b.ReportMetric(median(detachTime), "detach-p50-µs")
			b.ReportMetric(median(goneTime), "gone-p50-µs")
		})
	}
}

// BenchmarkBuiltinParallel is ten callers at once, each with pods of its own;
// the time is that of one pod's whole life.
func BenchmarkBuiltinParallel(b *testing.B) {
	n := network(b, host(b), nil)
	attach(b, n, "first")
	var next atomic.Int64
	b.SetParallelism(10 / min(10, runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p := attach(b, n, fmt.Sprint("p", next.Add(1)))
			detach(b, n, p)
		}
	})
}
