package netns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModeAuto(t *testing.T) {
	dir := t.TempDir()
	auto := func(c *Config) { c.Mode = ModeAuto }
	mode := func(n *Network) string {
		t.Helper()
		att, err := n.Prepare(Request{PodID: "a", NetnsPath: "/x"})
		if err != nil {
			return err.Error()
		}
		return att.Mode
	}
	n := network(t, dir, auto)
	if got := mode(n); got != ModeBuiltin {
		t.Errorf("no directory: %s", got)
	}
	write(t, filepath.Join(dir, "net.d"), "00-bad.conflist", "{", 0o644)
	if got := mode(n); got != ModeBuiltin {
		t.Errorf("an invalid file only: %s", got)
	}
	file := write(t, filepath.Join(dir, "net.d"), "10-good.conf", `{"cniVersion":"0.3.1","name":"good","type":"bridge"}`, 0o644)
	if got := mode(n); got != ModeCNI {
		t.Errorf("a valid file: %s", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Network{n, network(t, dir, auto)} {
		if got := mode(n); !strings.Contains(got, "no valid network configuration in "+filepath.Join(dir, "net.d")) || !strings.Contains(got, "00-bad.conflist") {
			t.Errorf("the file is gone again: %s", got)
		}
		if s := n.Status(ctx); s.Ready || s.Reason != ReasonInvalidConfig {
			t.Errorf("status %+v", s)
		}
	}
	if got := mode(network(t, dir, nil)); got != ModeBuiltin {
		t.Errorf("explicitly built-in: %s", got)
	}
}

func TestFindConf(t *testing.T) {
	for _, tc := range []struct {
		name    string
		files   map[string]string
		network string
		types   []string
		err     string
	}{
		{name: "lexically first", files: map[string]string{
			"20.conflist": `{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"y"}]}`,
			"10.json":     `{"cniVersion":"1.0.0","name":"a","type":"x"}`,
			"05.txt":      `{"name":"no","type":"z"}`,
		}, network: "a", types: []string{"x"}},
		{name: "invalid ones are passed over", files: map[string]string{
			"10.conflist": `{"cniVersion":"1.0.0","name":"a","plugins":[]}`,
			"11.conf":     `{"cniVersion":"1.0.0","type":"nameless"}`,
			"12.conflist": `{"cniVersion":"1.0.0","plugins":[{"type":"nameless"}]}`,
			"20.conflist": `{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"y"},{"type":"z"}]}`,
		}, network: "b", types: []string{"y", "z"}},
		{name: "plugins from the network's directory", files: map[string]string{
			"10.conflist":  `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"x"}]}`,
			"a/extra.conf": `{"type":"extra"}`,
		}, network: "a", types: []string{"x", "extra"}},
		{name: "empty", err: "no network configuration in"},
		{name: "only invalid", files: map[string]string{"10.conf": "nope"}, err: "10.conf: error parsing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for f, content := range tc.files {
				write(t, filepath.Join(dir, filepath.Dir(f)), filepath.Base(f), content, 0o644)
			}
			list, _, err := findConf(dir)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// What is recorded must be complete without the directory.
			n := network(t, t.TempDir(), nil)
			c, err := n.open(&Attachment{Mode: ModeCNI, Conflist: list.Bytes})
			if err != nil {
				t.Fatal(err)
			}
			var types []string
			for _, p := range c.list.Plugins {
				types = append(types, p.Network.Type)
			}
			if d := cmp.Diff(tc.types, types); d != "" || c.list.Name != tc.network {
				t.Errorf("network %q, plugins %s", c.list.Name, d)
			}
		})
	}
}

func TestParseRate(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want uint64
	}{{"10M", 1e7}, {"1k", 1000}, {"1.5G", 15e8}, {"1Mi", 1 << 20}, {"4000", 4000}, {"1e6", 1e6}, {"1P", 1e15},
		{"", 0}, {"10Q", 0}, {"0x10", 0}, {"1/2M", 0}, {"999", 0}, {"2P", 0}, {"-1M", 0}, {"1e999999999", 0}} {
		got, err := parseRate(tc.in)
		if got != tc.want || (err == nil) != (tc.want != 0) {
			t.Errorf("parseRate(%q) = %d, %v; want %d", tc.in, got, err, tc.want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cfg   Config
		parts string
	}{
		{"mode", Config{Mode: "magic"}, `network.mode: "magic"`},
		{"bridge", Config{Bridge: "a-name-that-is-too-long"}, "network.bridge"},
		{"pod cidr", Config{PodCIDR: "10.0.0.0"}, `network.pod_cidr: "10.0.0.0"`},
		{"pod cidr host bits", Config{PodCIDR: "10.0.0.1/24"}, "network.pod_cidr: pod CIDR 10.0.0.1/24 has host bits set; write 10.0.0.0/24"},
	} {
		tc.cfg.StateDir = t.TempDir()
		if _, err := New(ctx, tc.cfg); err == nil || !strings.Contains(err.Error(), tc.parts) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.parts)
		}
	}
}
