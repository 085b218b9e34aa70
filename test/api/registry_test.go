package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

// registry speaks enough of /v2/ for a pull, on loopback, and misbehaves on request: what a real one (test/critest has
// one) cannot be made to do.
type registry struct {
	*httptest.Server
	mu    sync.Mutex
	docs  map[string][]byte // manifests by tag and by digest
	types map[string]string
	blobs map[string][]byte
	gets  map[string]int
	// fault may answer in place of the registry; it returns true if it did.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{docs: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}, gets: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

// ref is the name of the one repository's tag.
func (r *registry) ref(tag string) string {
	return strings.TrimPrefix(r.URL, "http://") + "/api/image:" + tag
}

func (r *registry) host() string { return strings.TrimPrefix(r.URL, "http://") }

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	parts := strings.Split(req.URL.Path, "/")
	last := parts[len(parts)-1]
	r.mu.Lock()
	r.gets[req.Method+" "+last]++
	fault := r.fault
	mediaType, data := "application/octet-stream", r.blobs[last]
	if strings.Contains(req.URL.Path, "/manifests/") {
		mediaType, data = r.types[last], r.docs[last]
	}
	r.mu.Unlock()
	if fault != nil && fault(w, req) {
		return
	}
	if data == nil {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
}

func (r *registry) setFault(f func(w http.ResponseWriter, req *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

func (r *registry) count(request string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gets[request]
}

func (r *registry) manifest(tag, mediaType string, doc []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{tag, digest.FromBytes(doc).String()} {
		r.docs[name], r.types[name] = doc, mediaType
	}
}

// push adds an image, and gives its layer's digest.
func (r *registry) push(tag string, i daemon.Image) digest.Digest {
	r.manifest(tag, ispec.MediaTypeImageManifest, i.Manifest)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range [][]byte{i.Layer, i.Config} {
		r.blobs[digest.FromBytes(b).String()] = b
	}
	return digest.FromBytes(i.Layer)
}

// pushIndex adds a manifest list of one image, for one architecture.
func (r *registry) pushIndex(t *testing.T, tag, arch string, i daemon.Image) {
	t.Helper()
	r.push("of-"+tag, i)
	d := daemon.Describe(ispec.MediaTypeImageManifest, i.Manifest)
	d.Platform = &ispec.Platform{OS: "linux", Architecture: arch}
	doc, err := json.Marshal(ispec.Index{Versioned: imagespec.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	r.manifest(tag, ispec.MediaTypeImageIndex, doc)
}

// smallImage is an image of a few kilobytes with one file of this content.
func smallImage(content, arch string) daemon.Image {
	return daemon.NewImage(daemon.Layer([]daemon.File{{Name: "file", Content: content}, {Name: "pad", Content: strings.Repeat(content, 3000)}}), arch)
}
