package api

import (
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestMetrics holds them to what the kubelet asks: a descriptor for each, as many label values as keys, no two alike.
func TestMetrics(t *testing.T) {
	n := start(t)
	p := n.runPod("metrics")
	c := p.run("main", "sleep 1001 & head -c 3000000 /dev/zero > /file; echo ready; while read x < /proc/uptime && [ ! -e /stop ]; do :; done; exec sleep 1002", func(c *criapi.ContainerConfig) {
		c.Linux.Resources.CpuQuota, c.Linux.Resources.CpuPeriod = 90000, 100000
	})
	c.says("ready")
	until(t, "the container has not used a second of CPU", func() bool {
		r, err := n.Runtime.ContainerStats(n.ctx(), &criapi.ContainerStatsRequest{ContainerId: c.id})
		return err == nil && r.Stats.GetCpu().GetUsageCoreNanoSeconds().GetValue() > 1.1e9
	})
	c.exec(": > /stop")
	d, err := n.Runtime.ListMetricDescriptors(n.ctx(), &criapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, one := range d.Descriptors {
		if keys[one.Name] != nil || one.Help == "" || !strings.HasPrefix(one.Name, "container_") {
			t.Errorf("descriptor %v", one)
		}
		keys[one.Name] = one.LabelKeys
	}
	r, err := n.Runtime.ListPodSandboxMetrics(n.ctx(), &criapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.PodMetrics) != 1 || len(r.PodMetrics[0].ContainerMetrics) != 1 || r.PodMetrics[0].PodSandboxId != p.id || r.PodMetrics[0].ContainerMetrics[0].ContainerId != c.id {
		t.Fatalf("metrics: %v, %v", r, err)
	}
	ofPod, ofContainer := r.PodMetrics[0].Metrics, r.PodMetrics[0].ContainerMetrics[0].Metrics
	seen := map[string]bool{}
	for _, m := range append(append([]*criapi.Metric{}, ofPod...), ofContainer...) {
		series := m.Name + strings.Join(m.LabelValues, "|")
		if seen[series] || keys[m.Name] == nil || len(m.LabelValues) != len(keys[m.Name]) || m.Value == nil {
			t.Errorf("metric %v, its labels are %v", m, keys[m.Name])
		}
		seen[series] = true
	}
	label := func(m *criapi.Metric, key string) string {
		for i, k := range keys[m.Name] {
			if k == key {
				return m.LabelValues[i]
			}
		}
		return ""
	}
	find := func(list []*criapi.Metric, name string) *criapi.Metric {
		for _, m := range list {
			if m.Name == name {
				return m
			}
		}
		t.Errorf("no %s", name)
		return &criapi.Metric{}
	}
	for _, w := range []struct {
		name     string
		low, top uint64
	}{
		{"container_cpu_usage_seconds_total", 1, 60}, {"container_memory_usage_bytes", 1, 256 << 20}, {"container_memory_working_set_bytes", 1, 256 << 20},
		{"container_memory_max_usage_bytes", 1, 256 << 20}, {"container_fs_usage_bytes", 3e6, 10e6}, {"container_processes", 2, 2}, {"container_threads", 2, 2},
		{"container_file_descriptors", 4, 50}, {"container_spec_cpu_quota", 90000, 90000}, {"container_spec_memory_limit_bytes", 256 << 20, 256 << 20},
		{"container_start_time_seconds", 1.7e9, 1 << 40}, {"container_cpu_cfs_periods_total", 5, 1000}, {"container_oom_events_total", 0, 0}, {"container_ulimits_soft", 256, 1 << 40},
		{"container_fs_limit_bytes", 1 << 20, 1 << 60}, {"container_memory_failures_total", 1, 1 << 40},
	} {
		m := find(ofContainer, w.name)
		if v := m.GetValue().GetValue(); v < w.low || v > w.top {
			t.Errorf("%s is %d, want %d to %d", w.name, v, w.low, w.top)
		}
		if label(m, "container") != "main" || label(m, "pod") != "metrics" || label(m, "namespace") != "api" || label(m, "image") != imageName || label(m, "name") != c.id || !strings.HasSuffix(label(m, "id"), c.id) {
			t.Errorf("labels of %v", m)
		}
	}
	if m := find(ofPod, "container_network_receive_bytes_total"); label(m, "interface") != "eth0" || label(m, "container") != "" || label(m, "pod") != "metrics" {
		t.Errorf("labels of %v", m)
	}
}
