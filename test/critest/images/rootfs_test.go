package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func buildForTest(t *testing.T) (Layout, map[string]ispec.Descriptor) {
	t.Helper()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	layout, err := Build(t.Context(), cache, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := layout.Refs()
	if err != nil {
		t.Fatal(err)
	}
	return layout, refs
}

// TestBuildIsReproducible builds once more, elsewhere, and compares all names
// with their digests, which cover everything else.
func TestBuildIsReproducible(t *testing.T) {
	_, want := buildForTest(t)
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	debs, missing := findPackages(filepath.Join(cache, "debs"))
	if len(missing) > 0 {
		t.Fatalf("packages %v are gone from the cache", missing)
	}
	again := Layout{Dir: filepath.Join(t.TempDir(), "again")}
	if err := buildInto(t.Context(), again.Dir, debs); err != nil {
		t.Fatal(err)
	}
	got, err := again.Refs()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("second build (-first +second):\n%s", diff)
	}
}

// rootfs unpacks an image of this machine's architecture, as far as these
// images need it: no devices, whiteouts of single files.
func rootfs(t *testing.T, ref string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot unpack an image with its owners, nor chroot")
	}
	layout, refs := buildForTest(t)
	manifests, _, err := layout.Children(refs[ref])
	if err != nil || len(manifests) == 0 {
		t.Fatalf("%s: no manifests: %v", ref, err)
	}
	_, blobs, err := layout.Children(manifests[len(manifests)-1])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, layer := range blobs[1:] {
		data, err := layout.Blob(layer.Digest)
		if err != nil {
			t.Fatal(err)
		}
		unpack(t, dir, unpacker(t, layer.MediaType, data))
	}
	return dir
}

func unpacker(t *testing.T, mediaType string, data []byte) io.Reader {
	t.Helper()
	var r io.Reader = bytes.NewReader(data)
	var err error
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		r, err = gzip.NewReader(r)
	case strings.HasSuffix(mediaType, "zstd"):
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func unpack(t *testing.T, dir string, r io.Reader) {
	t.Helper()
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, h.Name)
		switch base := filepath.Base(at); {
		case strings.HasPrefix(base, ".wh."):
			err = os.Remove(filepath.Join(filepath.Dir(at), strings.TrimPrefix(base, ".wh.")))
		case h.Typeflag == tar.TypeDir:
			err = os.MkdirAll(at, 0o755)
		case h.Typeflag == tar.TypeLink:
			os.Remove(at)
			err = os.Link(filepath.Join(dir, h.Linkname), at)
		default:
			os.Remove(at)
			data, _ := io.ReadAll(in)
			err = os.WriteFile(at, data, 0o600)
		}
		if err == nil && h.Typeflag != tar.TypeLink && !strings.HasPrefix(filepath.Base(at), ".wh.") {
			err = errors.Join(os.Chown(at, h.Uid, h.Gid), syscall.Chmod(at, uint32(h.Mode)))
		}
		if err != nil {
			t.Fatalf("unpack %s: %v", h.Name, err)
		}
	}
}

// enter runs a command with an image as its root, in namespaces of its own:
// mount, PID (for /proc), network (lo is down, ports are free) and IPC. The
// setup is shell text that ends in "&&"; it may set $with, which chroot is run by.
func enter(ctx context.Context, dir, setup string, args ...string) *exec.Cmd {
	script := `mount -t proc proc "$0/proc" && mount -t sysfs sysfs "$0/sys" && mount --bind /dev "$0/dev" && ` + setup + ` exec $with chroot "$0" "$@"`
	full := append([]string{"--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", script, dir}, args...)
	cmd := exec.CommandContext(ctx, "unshare", full...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

// TestBusybox runs what critest runs, and expects the words it expects.
func TestBusybox(t *testing.T) {
	dir := rootfs(t, e2e+"busybox:1.29-2")
	for _, row := range []struct {
		name, setup string
		args        []string
		stdout      string
		stderr      string
		fails       bool
	}{
		{name: "echo", args: []string{"echo", "-n", "hello"}, stdout: "hello"},
		{name: "pgrep", args: []string{"sh", "-c", "sleep 9 & usleep 50000; pgrep sleep"}, stdout: "\n"},
		{name: "pgrep finds none", args: []string{"sh", "-c", "pgrep sleep || true"}},
		{name: "pidof", args: []string{"sh", "-c", "sleep 9 & usleep 50000; pidof sleep '||' true"}, stdout: "\n"},
		{name: "ipcs", args: []string{"ipcs", "-m"}, stdout: "------ Shared Memory Segments"},
		{name: "ipcs shows one", setup: "ipcmk -M 4096 >/dev/null &&", args: []string{"ipcs", "-m"}, stdout: " 0 0 644 4096 0"},
		{name: "netstat", args: []string{"netstat", "-ln"}, stdout: "Active"},
		{name: "id", args: []string{"id", "-nu"}, stdout: "root"},
		{name: "masked ls", setup: `mount --bind /dev/null "$0/bin/ls" &&`, args: []string{"/bin/sh", "-c", "ls"}, stderr: "/bin/sh: ls: Permission denied\n", fails: true},
		{name: "masked ls leaves cat", setup: `mount --bind /dev/null "$0/bin/ls" &&`, args: []string{"sh", "-c", "echo x | cat"}, stdout: "x"},
		{name: "touch", setup: `mount -t tmpfs -o ro none "$0/tmp" &&`, args: []string{"touch", "/tmp/test"}, stderr: "touch: /tmp/test: Read-only file system\n", fails: true},
		{name: "bridge", args: []string{"brctl", "addbr", "foobar"}},
		{name: "ping", setup: `ip link set lo up && with="setpriv --bounding-set -net_raw" &&`, args: []string{"ping", "127.0.0.1"}, stdout: "PING", stderr: "permission denied", fails: true},
		{name: "mount", args: []string{"sh", "-c", "mkdir -p /mnt/x && mount --bind /etc /mnt/x && ls -A /mnt/x"}, stdout: "passwd"},
		{name: "hostname", args: []string{"hostname"}},
		{name: "sleep infinity", args: []string{"sh", "-c", "sleep infinity & usleep 50000; kill $! && echo ok"}, stdout: "ok"},
		{name: "chmod", args: []string{"chmod", "400", "/"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			cmd := enter(ctx, dir, row.setup, row.args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if (err != nil) != row.fails {
				t.Errorf("%v: %v, stderr %q", row.args, err, stderr.String())
			}
			if !strings.Contains(stdout.String(), row.stdout) || !strings.Contains(stderr.String(), row.stderr) || (row.stderr == "" && stderr.Len() > 0) {
				t.Errorf("%v: stdout %q, stderr %q; want %q and %q in them", row.args, stdout.String(), stderr.String(), row.stdout, row.stderr)
			}
		})
	}
}

// TestServers starts each web server and asks it for its page, from inside
// its network namespace.
func TestServers(t *testing.T) {
	for _, row := range []struct {
		name, ref, url, logs string
		args                 []string
	}{
		{"nginx", e2e + "nginx:1.14-2", "http://127.0.0.1:80/", "nginx/", []string{"nginx", "-g", "daemon off;"}},
		{"hostnet", staging + "hostnet-nginx-amd64:latest", "http://127.0.0.1:12003/", "nginx/", []string{"nginx", "-g", "daemon off;"}},
		{"httpd", e2e + "httpd:2.4.39-4", "http://127.0.0.1:80/", "httpd", []string{"httpd", "-f", "/etc/httpd.conf", "-D", "FOREGROUND"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := rootfs(t, row.ref)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			script := `"$@" & until wget -q -O- "$URL"; do usleep 50000; done; tr '\0' ' ' </proc/$!/cmdline; ls /var/run; kill $!; wait`
			cmd := enter(ctx, dir, "ip link set lo up &&", append([]string{"/bin/sh", "-c", script, "sh"}, row.args...)...)
			cmd.Env = append(cmd.Env, "URL="+row.url)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || !strings.Contains(string(out), " answers.") || !strings.Contains(stderr.String(), row.logs) {
				t.Errorf("%v\nstdout: %s\nstderr: %s", err, out, stderr.String())
			}
			if !strings.Contains(string(out), row.name[:2]) && !strings.Contains(string(out), "master process") {
				t.Errorf("command line and /var/run: %s", out)
			}
		})
	}
}

// TestSetuid runs the setuid program as another user, with and without
// no_new_privs.
func TestSetuid(t *testing.T) {
	dir := rootfs(t, e2e+"nonewprivs:1.3")
	for d := dir; d != "/"; d = filepath.Dir(d) {
		// The temporary directory of a test is closed to others.
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 && strings.HasPrefix(d, os.TempDir()) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for flag, want := range map[string]string{"": "Effective uid: 0\n", "--no-new-privs": "Effective uid: 1000\n"} {
		args := []string{"--reuid=1000", "--clear-groups"}
		if flag != "" {
			args = append(args, flag)
		}
		out, err := exec.CommandContext(t.Context(), "setpriv", append(args, filepath.Join(dir, "usr/bin/nonewprivs"))...).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("setpriv %v: %q %v, want %q", args, out, err, want)
		}
	}
}
