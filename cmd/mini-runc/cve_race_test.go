package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Attacks by somebody who is at work meanwhile: another container that shares a volume, or the container itself. Those that
// need luck are tried attempts times.
const attempts = 40

// TestCVE202130465: the target of a mount is exchanged for a link out of the root while the mount is made. Wherever it comes
// to lie, it is inside, and the container does not see the host.
func TestCVE202130465(t *testing.T) {
	for _, link := range []string{"/", "../../../../../../..", "/rec", "/proc/self/attr"} {
		t.Run("to "+link, func(t *testing.T) {
			b := newBundle(t, "test -e $HOST && echo ESCAPED; busybox cat /etc/mark; busybox mount | busybox grep -c attacked")
			b.spec.Process.Env = append(b.spec.Process.Env, "HOST="+b.dir+"/config.json")
			must(t, os.WriteFile(filepath.Join(b.dir, "rootfs/etc/mark"), []byte("inside\n"), 0o644))
			volume := filepath.Join(b.dir, "volume")
			must(t, os.MkdirAll(filepath.Join(volume, "target"), 0o755))
			must(t, os.Symlink(link, filepath.Join(volume, "link")))
			b.spec.Mounts = append(b.spec.Mounts,
				specs.Mount{Type: "bind", Source: volume, Destination: "/tmp", Options: []string{"rbind"}},
				specs.Mount{Type: "tmpfs", Source: "attacked", Destination: "/tmp/target"},
				specs.Mount{Type: "bind", Source: volume, Destination: "/tmp/target", Options: []string{"rbind"}})
			b.write()
			before, err := os.ReadFile("/proc/self/mountinfo")
			must(t, err)
			stop := swapping(t, filepath.Join(volume, "target"), filepath.Join(volume, "link"))
			started := 0
			for range attempts {
				r := b.mini("run", "x")
				if r.err == "" && strings.HasPrefix(r.out, "inside\n") {
					started++
				} else if r.code == 0 || strings.Contains(r.out, "ESCAPED") {
					t.Errorf("%+v", r)
				}
			}
			stop()
			t.Logf("%d of %d containers were started", started, attempts)
			if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
				t.Errorf("mounts of the host: %s", after)
			}
		})
	}
}

// TestCVE202445310: a parent of a mount point that is to be made is exchanged for a link to a directory of the host, in which
// the runtime makes files and directories then.
func TestCVE202445310(t *testing.T) {
	b := newBundle(t, "true")
	canary := filepath.Join(b.dir, "canary")
	must(t, os.Mkdir(canary, 0o777))
	volume := filepath.Join(b.dir, "volume")
	must(t, os.MkdirAll(filepath.Join(volume, "target"), 0o777))
	must(t, os.Symlink(canary, filepath.Join(volume, "absolute")))
	must(t, os.Symlink("../../../../../../../.."+canary, filepath.Join(volume, "relative")))
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Type: "bind", Source: volume, Destination: "/tmp", Options: []string{"rbind"}},
		specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp/target/made/deep/directory"},
		specs.Mount{Type: "bind", Source: filepath.Join(b.dir, "config.json"), Destination: "/tmp/target/made/deep/file", Options: []string{"bind"}})
	b.spec.Process.Cwd = "/tmp/target/made/cwd"
	b.spec.Root.Readonly = false
	b.write()
	for _, link := range []string{"absolute", "relative"} {
		stop := swapping(t, filepath.Join(volume, "target"), filepath.Join(volume, link))
		for range attempts {
			b.mini("run", "x")
			for _, dir := range []string{"target", link} { // the next one makes them again
				if st, err := os.Lstat(filepath.Join(volume, dir)); err == nil && st.IsDir() {
					_ = os.RemoveAll(filepath.Join(volume, dir, "made"))
				}
			}
		}
		stop()
		if entries, err := os.ReadDir(canary); err != nil || len(entries) > 0 {
			t.Errorf("by the %s link the host's directory has %v, %v", link, entries, err)
		}
	}
	b.nothingLeft()
}

// TestProcIsExchanged: the image's /proc, /sys or /dev is exchanged for a link while the container is made (CVE-2019-19921,
// CVE-2025-52881, CVE-2026-41579). One that starts has the kernel's file systems where they belong, and the limits that it
// should have.
func TestProcIsExchanged(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, "busybox stat -f -c %T /proc /sys /dev; busybox cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax; busybox stat -c %t:%T /proc/timer_list")
			root := filepath.Join(b.dir, "rootfs")
			canary := filepath.Join(b.dir, "canary")
			fakeProc(t, canary)
			fakeProc(t, filepath.Join(root, "rec"))
			must(t, os.Symlink("/rec", filepath.Join(root, "link")))
			if name == "dev" {
				must(t, os.Remove(filepath.Join(root, "link")))
				must(t, os.Symlink("../../../../../.."+canary, filepath.Join(root, "link")))
			}
			score := 777
			b.spec.Process.OOMScoreAdj = &score
			b.spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4096"}
			b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/proc/timer_list"}, nil
			b.spec.Root.Readonly = false
			b.write()
			created := 0
			for range attempts {
				stop := swapping(t, filepath.Join(root, name), filepath.Join(root, "link"))
				out, err := os.Create(filepath.Join(b.dir, "output"))
				must(t, err)
				create := b.command("create", "x")
				create.Stdout, create.Stderr = out, out
				err = create.Run()
				stop()
				out.Close()
				// The names are as they were before the program runs: what it finds by a link that it meets is its own affair.
				if st, err := os.Lstat(filepath.Join(root, name)); err == nil && !st.IsDir() {
					must(t, unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, name), unix.AT_FDCWD, filepath.Join(root, "link"), unix.RENAME_EXCHANGE))
				}
				if err != nil {
					continue
				}
				created++
				b.ok("start", "x")
				b.waitStatus("x", "stopped")
				text, _ := os.ReadFile(filepath.Join(b.dir, "output"))
				lines := strings.Split(string(text), "\n")
				if name == "dev" && len(lines) > 2 {
					lines[2] = "tmpfs" // one that was made behind the link is inside, and the image's own affair too
				}
				want(t, strings.Join(lines, "\n"), "proc\nsysfs\ntmpfs\n777\n4096\n1:3\n")
				b.ok("delete", "x")
			}
			t.Logf("%d of %d containers were created", created, attempts)
			nothingWritten(t, filepath.Join(root, "rec"))
			nothingWritten(t, canary)
			if entries, _ := os.ReadDir(canary); len(entries) != 4 {
				t.Errorf("the host's directory has %v", entries)
			}
			b.nothingLeft()
		})
	}
}

// TestNullIsExchanged: /dev/null of a volume is exchanged for a file while paths are masked with it (CVE-2025-31133).
func TestNullIsExchanged(t *testing.T) {
	b := newBundle(t, "busybox stat -c %t:%T /proc/timer_list /proc/keys; busybox cat /proc/timer_list")
	volume := filepath.Join(b.dir, "volume")
	must(t, os.Mkdir(volume, 0o755))
	must(t, unix.Mknod(filepath.Join(volume, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.WriteFile(filepath.Join(volume, "fake"), []byte("FAKE\n"), 0o644))
	b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = []string{"/proc/timer_list", "/proc/keys"}, nil
	b.spec.Mounts = append(b.spec.Mounts[:1:1], specs.Mount{Type: "bind", Source: volume, Destination: "/dev", Options: []string{"rbind"}})
	b.write()
	stop := swapping(t, filepath.Join(volume, "null"), filepath.Join(volume, "fake"))
	defer stop()
	for range attempts {
		want(t, b.ok("run", "x"), "1:3\n1:3\n")
	}
}

// inUserNamespace runs a script as the root of a user namespace, with all capabilities that it has there.
func inUserNamespace(t *testing.T, script string, change func(*specs.Spec)) string {
	t.Helper()
	return inside(t, script, func(s *specs.Spec) {
		withUserNamespace(s)
		everything(s)
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		change(s)
	})
}

// TestSharedBindSource: what the root of a user namespace mounts in a volume does not come out, though the host's mount is
// shared; and it cannot ask for a volume that lets it.
func TestSharedBindSource(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=777"))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	must(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o777))
	for _, options := range [][]string{{"rbind"}, {"bind"}, {"rbind", "rslave"}, {"rbind", "rprivate"}} {
		out := inUserNamespace(t, "/bin/busybox mount -t tmpfs evil /rec/sub && touch /rec/sub/x && ls /rec/sub", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: options})
		})
		want(t, out, "x\n") // the attack was made
		table, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		if strings.Contains(string(table), dir+"/sub") {
			t.Errorf("%q: the container's mount has come out:\n%s", options, table)
			_ = unix.Unmount(filepath.Join(dir, "sub"), unix.MNT_DETACH)
		}
		// The other way round a slave gets what the host mounts, which is what it was asked for.
	}
	b := newBundle(t, "true")
	withUserNamespace(b.spec)
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: []string{"rbind", "rshared"}})
	b.refused("shared propagation would lead out of the user namespace")
}

// TestLockedFlags: the root of a user namespace cannot take ro, nosuid, nodev and noexec from a mount of the host, by no call,
// nor lay open what the host has covered.
func TestLockedFlags(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=777"))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	covered := filepath.Join(dir, "covered")
	must(t, os.Mkdir(covered, 0o777))
	must(t, os.WriteFile(filepath.Join(covered, "secret"), nil, 0o644))
	must(t, unix.Mount("tmpfs", covered, "tmpfs", 0, ""))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""))
	script := strings.Join([]string{
		"B=/bin/busybox", "for f in rw,nosuid,nodev,noexec ro,suid,nodev,noexec ro,nosuid,dev,noexec ro,nosuid,nodev,exec; do $B mount -o remount,bind,$f /rec 2> /dev/null && echo REACHED $f; done",
		"$B mount --rbind /rec /tmp && $B mount -o remount,bind,rw,nosuid,nodev,noexec /tmp 2> /dev/null && echo REACHED by a copy", "touch /rec/x 2> /dev/null && echo REACHED written",
		"$B umount /rec/covered 2> /dev/null && echo REACHED uncovered", "ls /rec/covered", "grep ' /rec ' /proc/self/mountinfo | cut -d' ' -f6",
	}, "; ")
	volume := func(options ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/rec", Options: options})
		}
	}
	want(t, inUserNamespace(t, script, volume("rbind")), "ro,nosuid,nodev,noexec,relatime\n")
	want(t, inUserNamespace(t, script, volume("rbind", "rprivate")), "ro,nosuid,nodev,noexec,relatime\n")
	// Nor can the runtime be made to do it, and what is covered is not left out of a copy.
	for _, options := range [][]string{{"rbind", "rw"}, {"rbind", "suid"}, {"rbind", "rexec"}, {"bind"}} {
		if out := inUserNamespace(t, script, volume(options...)); !strings.HasPrefix(out, "mini-runc: run container x: op ") {
			t.Errorf("%q: %s", options, out)
		}
	}
}
