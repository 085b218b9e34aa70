package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/test/testbed"
)

// layout writes an OCI layout of one image with these layers and this config, for this machine.
func layout(t *testing.T, dir string, config map[string]any, layers ...[]tar.Header) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755))
	blob := func(data []byte) string {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		must(t, os.WriteFile(filepath.Join(dir, "blobs/sha256", sum), data, 0o644))
		return "sha256:" + sum
	}
	descriptor := func(kind string, data []byte) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": blob(data), "size": len(data)}
	}
	asJSON := func(v any) []byte {
		text, err := json.Marshal(v)
		must(t, err)
		return text
	}
	var descriptors []any
	var diffs []string
	for _, headers := range layers {
		var plain, packed bytes.Buffer
		w := tar.NewWriter(&plain)
		for _, h := range headers {
			content := h.PAXRecords["content"]
			h.PAXRecords, h.Size = nil, int64(len(content))
			must(t, w.WriteHeader(&h))
			_, err := w.Write([]byte(content))
			must(t, err)
		}
		must(t, w.Close())
		z := gzip.NewWriter(&packed)
		_, err := z.Write(plain.Bytes())
		must(t, err)
		must(t, z.Close())
		diffs = append(diffs, fmt.Sprintf("sha256:%x", sha256.Sum256(plain.Bytes())))
		descriptors = append(descriptors, descriptor("layer.v1.tar+gzip", packed.Bytes()))
	}
	image := asJSON(map[string]any{"architecture": runtime.GOARCH, "os": "linux", "config": config, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	manifest := asJSON(map[string]any{"schemaVersion": 2, "config": descriptor("config.v1+json", image), "layers": descriptors})
	index := asJSON(map[string]any{"schemaVersion": 2, "manifests": []any{descriptor("manifest.v1+json", manifest)}})
	must(t, os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

func regular(name, content string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, PAXRecords: map[string]string{"content": content}}
}

// TestBundle: an image becomes a bundle that runs what the image says, as its user, from a layout, from an archive of it,
// and from cri-mini's store.
func TestBundle(t *testing.T) {
	b := newBundle(t, "")
	must(t, testbed.Programs(programs, "cri-mini"))
	busybox, err := os.ReadFile("/bin/busybox")
	must(t, err)
	source := filepath.Join(b.dir, "layout")
	layout(t, source, map[string]any{
		"User": "web", "Env": []string{"PATH=/bin", "A=1"}, "WorkingDir": "/srv", "Entrypoint": []string{"sh", "-c"}, "Cmd": []string{"echo $A; pwd; id; ls /etc"},
		"Labels": map[string]string{"org.opencontainers.image.title": "t", "org.systemd.property.X": "'y'"},
	}, []tar.Header{
		regular("bin/busybox", string(busybox), 0o755), {Typeflag: tar.TypeLink, Name: "bin/sh", Linkname: "bin/busybox"},
		{Typeflag: tar.TypeSymlink, Name: "bin/id", Linkname: "busybox"}, {Typeflag: tar.TypeSymlink, Name: "bin/ls", Linkname: "busybox"}, {Typeflag: tar.TypeSymlink, Name: "bin/pwd", Linkname: "busybox"},
		regular("etc/passwd", "web:x:33:34::/:\n", 0o644), regular("etc/group", "web:x:34:\nlog:x:35:web\n", 0o644), regular("etc/gone", "x", 0o644),
		{Typeflag: tar.TypeDir, Name: "old", Mode: 0o755}, regular("old/a", "x", 0o644), {Typeflag: tar.TypeDir, Name: "srv", Mode: 0o755, Uid: 33, Gid: 34},
	}, []tar.Header{
		regular("etc/.wh.gone", "", 0), {Typeflag: tar.TypeDir, Name: "old", Mode: 0o750}, regular("old/.wh..wh..opq", "", 0), regular("old/su", "x", 0o4755),
	})
	archive := filepath.Join(b.dir, "image.tar")
	if out, err := exec.Command("tar", "-C", source, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	config := filepath.Join(b.dir, "cri-mini.toml")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf("run_dir = %q\nstate_dir = %q\nsocket = %q\n", b.dir+"/crun", b.dir+"/cstate", b.dir+"/c.sock")), 0o644))
	load := exec.Command(programs+"/cri-mini", "image", "load", "--config", config, "--name", "example.com/web:1", archive)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("cri-mini image load: %v\n%s", err, out)
	}
	for i, image := range []string{source, archive, "example.com/web:1"} {
		t.Run(filepath.Base(image), func(t *testing.T) {
			dir := filepath.Join(b.dir, fmt.Sprint("bundle", i))
			b.ok("bundle", "--config", config, image, dir)
			b.checkBundle(t, dir)
			b.fails("exists. Remove it first", "bundle", image, dir)
		})
	}
	b.fails("neither a file here nor an image of the store", "bundle", "--config", config, "example.com/nothing:1", filepath.Join(b.dir, "none"))
	if left, _ := filepath.Glob(b.dir + "/*/.cri-mini-export-*"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	program, err := os.ReadFile(programs + "/mini-runc")
	must(t, err)
	alone := filepath.Join(b.dir, "mini-runc") // a copy, without cri-mini beside it
	must(t, os.WriteFile(alone, program, 0o755))
	cmd := exec.Command(alone, "bundle", archive, filepath.Join(b.dir, "none"))
	cmd.Env = []string{"PATH=/nowhere"}
	if r := b.call(cmd); r.code != 1 || !strings.Contains(r.err, "images are read by cri-mini") {
		t.Errorf("%+v", r)
	}
}

func (b *bundleDir) checkBundle(t *testing.T, dir string) {
	t.Helper()
	stat := func(name string) *syscall.Stat_t {
		info, err := os.Lstat(filepath.Join(dir, "rootfs", name))
		must(t, err)
		return info.Sys().(*syscall.Stat_t)
	}
	if sh, box := stat("bin/sh"), stat("bin/busybox"); sh.Ino != box.Ino || sh.Nlink != 2 {
		t.Error("a hard link is none any more")
	}
	if su := stat("old/su"); su.Mode&0o7777 != 0o4755 {
		t.Errorf("old/su has mode %o", su.Mode)
	}
	if srv := stat("srv"); srv.Uid != 33 || srv.Gid != 34 {
		t.Errorf("srv belongs to %d:%d", srv.Uid, srv.Gid)
	}
	for _, name := range []string{"etc/gone", "etc/.wh.gone", "old/a", "old/.wh..wh..opq"} {
		if _, err := os.Lstat(filepath.Join(dir, "rootfs", name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(t, err)
	var s specs.Spec
	must(t, json.Unmarshal(text, &s))
	if len(s.Annotations) != 1 || s.Annotations["org.opencontainers.image.title"] != "t" {
		t.Errorf("annotations %v", s.Annotations)
	}
	s.Linux.CgroupsPath = b.spec.Linux.CgroupsPath
	text, err = json.Marshal(s)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644))
	want(t, b.ok("run", "-b", dir, "x"), "1\n/srv\nuid=33(web) gid=34(web) groups=35(log)\ngroup\npasswd\n")
}
