package main

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestHome: the program has a HOME by the container's own /etc/passwd, and an exec too; one that is given stays.
func TestHome(t *testing.T) {
	b := newBundle(t, "echo $HOME")
	b.write()
	want(t, b.ok("run", "x"), "/\n")
	passwd := filepath.Join(b.dir, "rootfs/etc/passwd")
	must(t, os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:\n"), 0o644))
	want(t, b.ok("run", "x"), "/root\n")
	b.spec.Process.User = specs.User{UID: 33, GID: 33}
	b.write()
	want(t, b.ok("run", "x"), "/srv\n")
	over := filepath.Join(b.dir, "passwd")
	must(t, os.WriteFile(over, []byte("web:x:33:33::/bound:\n"), 0o644))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: over, Destination: "/etc/passwd", Options: []string{"bind"}})
	b.spec.Process.Args[2] = "echo $HOME; exec busybox sleep 1000"
	b.write()
	b.ok("run", "-d", "x")
	want(t, b.ok("exec", "x", "sh", "-c", "echo $HOME"), "/bound\n")
	want(t, b.ok("exec", "--user", "0", "x", "sh", "-c", "echo $HOME"), "/\n")
	want(t, b.ok("exec", "-e", "HOME=/given", "x", "sh", "-c", "echo $HOME"), "/given\n")
	b.ok("delete", "-f", "x")

	// A link of the image leads to the image's file, not to the host's.
	b.spec.Mounts = b.spec.Mounts[:len(b.spec.Mounts)-1]
	b.spec.Process.User, b.spec.Process.Args[2] = specs.User{}, "echo $HOME"
	b.write()
	must(t, os.Remove(passwd))
	must(t, os.Symlink("/etc/passwd-", passwd))
	want(t, b.ok("run", "x"), "/\n")
}

// TestLoopback: a network namespace of its own has 127.0.0.1: it answers, were it to say that nobody listens.
func TestLoopback(t *testing.T) {
	b := newBundle(t, "busybox cat /sys/class/net/lo/flags; busybox nc 127.0.0.1 7777 </dev/null 2>&1 | busybox grep -o 'Connection refused'")
	b.write()
	want(t, b.ok("run", "x"), "0x9\nConnection refused\n")
}

func FuzzHome(f *testing.F) {
	f.Add([]byte("root:x:0:0::/root:/bin/sh\n"), uint32(0))
	f.Add([]byte("a:b:c"), uint32(1))
	f.Fuzz(func(t *testing.T, text []byte, uid uint32) {
		if home := homeOf(text, uid); home == "" {
			t.Error("an empty home")
		}
	})
}
