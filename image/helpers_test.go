package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/image/worker"
)

// fakeRegistry speaks enough of /v2/ for a pull and misbehaves on request. The well-behaved cases run against a real
// registry in test/critest; this one is for what a real one cannot be made to do.
type fakeRegistry struct {
	*httptest.Server
	mu    sync.Mutex
	docs  map[string]document2 // "repo:tag", and digests
	blobs map[digest.Digest][]byte
	gets  map[string]int // requests by method and last path element
	// fault may answer in place of the registry; it returns true if it did.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

type document2 struct {
	mediaType string
	data      []byte
}

func newRegistry(t testing.TB) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{docs: make(map[string]document2), blobs: make(map[digest.Digest][]byte), gets: make(map[string]int)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

func (f *fakeRegistry) host() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	last := parts[len(parts)-1]
	f.mu.Lock()
	f.gets[r.Method+" "+last]++
	fault := f.fault
	var data []byte
	mediaType := "application/octet-stream"
	if len(parts) >= 3 && parts[len(parts)-2] == "manifests" {
		key := last
		if !strings.Contains(last, ":") {
			key = strings.Join(parts[:len(parts)-2], "/") + ":" + last
		}
		data, mediaType = f.docs[key].data, f.docs[key].mediaType
	} else if len(parts) >= 3 {
		data = f.blobs[digest.Digest(last)]
	}
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	if data == nil {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (f *fakeRegistry) setFault(fault func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fakeRegistry) count(method string, d digest.Digest) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gets[method+" "+d.String()]
}

func (f *fakeRegistry) blob(mediaType string, data []byte) ispec.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	desc := digestOf(mediaType, data)
	f.blobs[desc.Digest] = data
	return desc
}

func (f *fakeRegistry) manifest(mediaType, name string, v any) ispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	desc := digestOf(mediaType, data)
	f.docs[desc.Digest.String()] = document2{mediaType, data}
	if name != "" {
		f.docs[name] = document2{mediaType, data}
	}
	return desc
}

// spec is an image to be built.
type spec struct {
	layers   [][]byte // tars
	compress []string // "gzip" (default), "zstd", "none", by layer
	platform ispec.Platform
	config   ispec.ImageConfig
	docker   bool
}

var amd64 = ispec.Platform{OS: "linux", Architecture: "amd64"}

func (f *fakeRegistry) image(t testing.TB, name string, s spec) (manifest, config ispec.Descriptor) {
	t.Helper()
	m, configJSON, blobs := build(t, s)
	for i, b := range blobs {
		f.blob(m.Layers[i].MediaType, b)
	}
	return f.manifest(m.MediaType, name, m), f.blob(m.Config.MediaType, configJSON)
}

func build(t testing.TB, s spec) (m ispec.Manifest, configJSON []byte, blobs [][]byte) {
	t.Helper()
	if s.platform.OS == "" {
		s.platform = amd64
	}
	img := ispec.Image{Platform: s.platform, Config: s.config, RootFS: ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	m = ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, Layers: []ispec.Descriptor{}}
	for i, raw := range s.layers {
		kind := "gzip"
		if i < len(s.compress) {
			kind = s.compress[i]
		}
		mediaType, data := compressLayer(t, kind, raw)
		if s.docker {
			mediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		}
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(raw))
		m.Layers = append(m.Layers, digestOf(mediaType, data))
		blobs = append(blobs, data)
	}
	configJSON, err := json.Marshal(img)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = digestOf(ispec.MediaTypeImageConfig, configJSON)
	if s.docker {
		m.MediaType, m.Config.MediaType = dockerManifest, dockerConfig
	}
	return m, configJSON, blobs
}

func compressLayer(t testing.TB, kind string, raw []byte) (mediaType string, data []byte) {
	t.Helper()
	switch kind {
	case "none":
		return ispec.MediaTypeImageLayer, raw
	case "zstd":
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return ispec.MediaTypeImageLayerZstd, w.EncodeAll(raw, nil)
	}
	return ispec.MediaTypeImageLayerGzip, gzipBytes(t, raw)
}

func gzipBytes(t testing.TB, raw []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// layerTar makes a tar of lines: "f name content", "d name mode", "s name target", "l name target", "w name", each with
// root's ownership unless mode is given as mode:uid:gid.
func layerTar(t testing.TB, lines ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		name, arg, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX}
		content := ""
		switch kind {
		case "f":
			h.Typeflag, h.Size, content = tar.TypeReg, int64(len(arg)), arg
		case "d":
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			if p := strings.Split(arg, ":"); len(p) == 3 {
				h.Mode, _ = strconv.ParseInt(p[0], 8, 64)
				h.Uid, _ = strconv.Atoi(p[1])
				h.Gid, _ = strconv.Atoi(p[2])
			}
		case "s":
			h.Typeflag, h.Linkname = tar.TypeSymlink, arg
		case "l":
			h.Typeflag, h.Linkname = tar.TypeLink, arg
		case "w":
			h.Typeflag = tar.TypeReg
			h.Name = filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name))
		default:
			t.Fatalf("bad line %q", line)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers hold device nodes, owners and trusted.* extended attributes")
	}
}

func testConfig(root string) Config {
	return Config{
		Root: root, Platform: amd64,
		Registry: registry.Config{StallTimeout: 5 * time.Second},
		Logger:   slog.New(slog.DiscardHandler),
	}
}

// allowAll is a seccomp filter that refuses nothing: which calls are refused is the command's to say, and tested there.
var allowAll = []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}

// unpackProgram is the worker: a static one, as the real one is, since under Landlock no library can be read.
var unpackProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cri-mini-worker-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "./worker/testdata/worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build worker: %w\n%s", err, out)
	}
	return filepath.Join(dir, "worker"), nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := unpackProgram(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	needRoot(t)
	path, err := unpackProgram()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Worker = worker.Command{Path: path, Filter: allowAll}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// empty fails if the store holds anything.
func empty(t testing.TB, s *Store) {
	t.Helper()
	s.Wait()
	for _, dir := range []string{"l", "i", "tmp", "bad"} {
		names, err := os.ReadDir(filepath.Join(s.cfg.Root, dir))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) > 0 {
			t.Errorf("%s/ is not empty: %v", dir, names)
		}
	}
}

// overlay mounts directories as the kernel shows them to a container, detached, so that the machine does not see it.
func overlay(t testing.TB, lower []string) string {
	t.Helper()
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("cannot mount overlayfs: %v", err)
	}
	defer unix.Close(fsfd)
	for _, dir := range append(append([]string(nil), lower...), t.TempDir()) { // alone, one lower is refused
		if err := unix.FsconfigSetString(fsfd, "lowerdir+", dir); err != nil {
			t.Skipf("kernel before 6.7: no lowerdir+: %v", err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Fatalf("overlay of %v: %v", lower, err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mfd) })
	return fmt.Sprintf("/proc/self/fd/%d/.", mfd)
}

// listing describes a tree, one line an entry.
func listing(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	inodes := make(map[uint64]string)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode&0o7777, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			line = "d " + line
		case unix.S_IFLNK:
			to, _ := os.Readlink(p)
			line = "s " + rel + " -> " + to
		default:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line = fmt.Sprintf("f %s %q", line, b)
			if first, ok := inodes[st.Ino]; ok {
				line += " = " + first
			} else {
				inodes[st.Ino] = rel
			}
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func (d document2) descriptor() ispec.Descriptor { return digestOf(d.mediaType, d.data) }
