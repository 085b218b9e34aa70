package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestTmpfsMode: without a mode of its own, a tmpfs has that of the directory it covers.
func TestTmpfsMode(t *testing.T) {
	b := newBundle(t, "busybox stat -c '%n %a' /etc /tmp /rec /new")
	must(t, os.Chmod(filepath.Join(b.dir, "rootfs/etc"), 0o710))
	must(t, os.Chmod(filepath.Join(b.dir, "rootfs/tmp"), 0o700|os.ModeSticky))
	b.spec.Root.Readonly = false
	for _, m := range []struct{ dest, option string }{{"/etc", "size=1m"}, {"/tmp", "nosuid"}, {"/rec", "mode=777"}, {"/new", "rw"}} {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: m.dest, Type: "tmpfs", Source: "tmpfs", Options: []string{m.option}})
	}
	b.write()
	want(t, b.ok("run", "x"), "/etc 710\n/tmp 1700\n/rec 777\n/new 755\n")
}

// TestTmpfsCopyUp: a tmpfs with tmpcopyup begins with what it covers, with its owners, modes, times and attributes. What
// links point to, and what is mounted there, is not copied; the image is left as it is.
func TestTmpfsCopyUp(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*specs.Spec)
	}{{"root", nil}, {"user namespace", withUserNamespace}} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBundle(t, strings.Join([]string{
				"cd /etc", "busybox find . -not -name secret* | busybox sort | busybox tr '\\n' ' '", "echo", "busybox stat -c '%n %a %u:%g' .; busybox stat -c '%n %a %u:%g %Y' file sub sub/suid",
				"busybox cat file sub/suid", "busybox readlink link", "busybox cat sub/link 2>&1", "echo new > file; busybox mkdir more; busybox cat file",
				"busybox stat -c %a:%u /var", "busybox ls /var",
			}, "; "))
			etc := filepath.Join(b.dir, "rootfs/etc")
			for _, set := range []*[]string{&b.spec.Process.Capabilities.Bounding, &b.spec.Process.Capabilities.Effective, &b.spec.Process.Capabilities.Permitted} {
				*set = []string{"CAP_DAC_OVERRIDE"} // the files are another user's
			}
			base := 0
			if tc.change != nil {
				tc.change(b.spec)
				base = 100000
			}
			must(t, os.MkdirAll(filepath.Join(etc, "sub/deep/deeper"), 0o755))
			must(t, os.WriteFile(filepath.Join(etc, "file"), []byte("text\n"), 0o640))
			must(t, os.WriteFile(filepath.Join(etc, "sub/suid"), []byte("suid\n"), 0o755))
			must(t, os.Symlink("/proc/self/nothing", filepath.Join(etc, "link")))
			must(t, os.Symlink(b.dir+"/config.json", filepath.Join(etc, "sub/link"))) // of the host
			must(t, unix.Mkfifo(filepath.Join(etc, "fifo"), 0o600))
			for _, name := range []string{"", "file", "sub", "sub/suid"} {
				must(t, os.Lchown(filepath.Join(etc, name), base+7, base+8))
			}
			must(t, os.Chmod(filepath.Join(etc, "sub/suid"), 0o755|os.ModeSetuid))
			must(t, unix.Setxattr(filepath.Join(etc, "file"), "trusted.x", []byte("y"), 0))
			for _, name := range []string{"file", "sub", "sub/suid"} {
				must(t, unix.UtimesNano(filepath.Join(etc, name), []unix.Timespec{{Sec: 5}, {Sec: 1234567}}))
			}
			must(t, os.Chmod(etc, 0o751))
			b.spec.Mounts = append(b.spec.Mounts,
				specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "nosuid", "size=1m"}},
				specs.Mount{Destination: "/var", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "mode=711"}})
			b.spec.Root.Readonly = false
			must(t, os.Chmod(filepath.Join(b.dir, "rootfs"), 0o777)) // the user namespace's root makes /var there
			b.write()
			want(t, b.ok("run", "x"), ". ./fifo ./file ./link ./sub ./sub/deep ./sub/deep/deeper ./sub/link ./sub/suid \n"+
				". 751 7:8\nfile 640 7:8 1234567\nsub 755 7:8 1234567\nsub/suid 4755 7:8 1234567\n"+
				"text\nsuid\n/proc/self/nothing\ncat: can't open 'sub/link': No such file or directory\nnew\n711:0\n")
			text, err := os.ReadFile(filepath.Join(etc, "file"))
			if err != nil || string(text) != "text\n" {
				t.Errorf("the image's file is %q, %v", text, err)
			}
		})
	}
}
