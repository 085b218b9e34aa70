// Command image writes an OCI archive with nothing in it but a static busybox
// and its applets as hard links: an image to measure and to show with, on a
// machine without a registry.
//
//	image [-busybox /bin/busybox] [-name localhost/cri-mini-bench:1] [-cmd /bin/sh] FILE
//
// The same busybox gives the same bytes. It imports nothing of this module.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha256" // for go-digest
	"debug/elf"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	busybox := flag.String("busybox", "/bin/busybox", "static busybox to put in")
	name := flag.String("name", "localhost/cri-mini-bench:1", "name of the image")
	cmd := flag.String("cmd", "/bin/sh", "the image's command, words apart by spaces")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: image [-busybox FILE] [-name NAME] [-cmd WORDS] FILE")
		os.Exit(2)
	}
	if err := write(flag.Arg(0), *busybox, *name, strings.Fields(*cmd)); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(path, busybox, name string, cmd []string) error {
	program, err := readStatic(busybox)
	if err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets of %s: %w", busybox, err)
	}
	var raw bytes.Buffer
	if err := rootfs(&raw, program, strings.Fields(string(applets))); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := archive(f, raw.Bytes(), name, cmd); err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	return f.Close()
}

// readStatic refuses a dynamic busybox: its libraries would be missing.
func readStatic(path string) ([]byte, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("read busybox: %s needs shared libraries; install busybox-static", path)
		}
	}
	return os.ReadFile(path)
}

// rootfs writes the one layer.
func rootfs(w io.Writer, busybox []byte, applets []string) error {
	tw := tar.NewWriter(w)
	put := func(h tar.Header, content string) error {
		h.Size, h.ModTime = int64(len(content)), time.Unix(0, 0)
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		_, err := io.WriteString(tw, content)
		return err
	}
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "root/", "sys/", "run/"} {
		if err := put(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, ""); err != nil {
			return err
		}
	}
	if err := put(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, ""); err != nil {
		return err
	}
	const passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	if err := put(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, passwd); err != nil {
		return err
	}
	if err := put(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(busybox)); err != nil {
		return err
	}
	for _, a := range applets {
		if a == "busybox" {
			continue
		}
		if err := put(tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + a, Linkname: "bin/busybox", Mode: 0o755}, ""); err != nil {
			return err
		}
	}
	return tw.Close()
}

// archive writes the OCI layout (image-spec, image-layout.md) as a tar.
func archive(w io.Writer, layer []byte, name string, cmd []string) error {
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	if _, err := zw.Write(layer); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	file := func(path string, content []byte) error {
		h := tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		_, err := tw.Write(content)
		return err
	}
	blob := func(mediaType string, content []byte) (ispec.Descriptor, error) {
		d := digest.FromBytes(content)
		return ispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))},
			file("blobs/sha256/"+d.Encoded(), content)
	}
	document := func(mediaType string, v any) (ispec.Descriptor, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return ispec.Descriptor{}, err
		}
		return blob(mediaType, data)
	}
	layerDesc, err := blob(ispec.MediaTypeImageLayerGzip, packed.Bytes())
	if err != nil {
		return err
	}
	config := ispec.Image{
		Platform: ispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   ispec.ImageConfig{Cmd: cmd, Env: []string{"PATH=/bin"}},
		RootFS:   ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}
	configDesc, err := document(ispec.MediaTypeImageConfig, config)
	if err != nil {
		return err
	}
	manifest, err := document(ispec.MediaTypeImageManifest, ispec.Manifest{
		Versioned: imagespec.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: configDesc, Layers: []ispec.Descriptor{layerDesc},
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{
		ispec.AnnotationRefName:    name[strings.LastIndex(name, ":")+1:],
		"io.containerd.image.name": name,
	}
	index, err := json.Marshal(ispec.Index{
		Versioned: imagespec.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex,
		Manifests: []ispec.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	if err := file(ispec.ImageIndexFile, index); err != nil {
		return err
	}
	layout, err := json.Marshal(ispec.ImageLayout{Version: ispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	if err := file(ispec.ImageLayoutFile, layout); err != nil {
		return err
	}
	return tw.Close()
}
