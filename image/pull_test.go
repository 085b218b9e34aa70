package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func index(mediaType string, entries ...ispec.Descriptor) ispec.Index {
	return ispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: entries}
}

func on(d ispec.Descriptor, p ispec.Platform) ispec.Descriptor {
	d.Platform = &p
	return d
}

var (
	arm64   = ispec.Platform{OS: "linux", Architecture: "arm64"}
	unknown = ispec.Platform{OS: "unknown", Architecture: "unknown"}
)

func TestPullByTagAndDigest(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	base := layerTar(t, "d .", "f etc/passwd root:x:0:0", "f big "+strings.Repeat("x", 1<<20))
	m, config := reg.image(t, "", spec{
		layers:   [][]byte{base, layerTar(t, "d .", "f a 1"), layerTar(t, "d .", "f b 2")},
		compress: []string{"gzip", "zstd", "none"},
		config:   ispec.ImageConfig{User: "1:2", Cmd: []string{"sh"}},
	})
	other, _ := reg.image(t, "", spec{layers: [][]byte{layerTar(t, "f arm 1")}, platform: arm64})
	inner := reg.manifest(ispec.MediaTypeImageIndex, "", index(ispec.MediaTypeImageIndex, on(other, arm64), on(m, amd64), on(other, unknown)))
	outer := reg.manifest(ispec.MediaTypeImageIndex, "dir/app:v1", index(ispec.MediaTypeImageIndex, inner))

	tag := reg.host() + "/dir/app:v1"
	img, err := s.Pull(t.Context(), PullRequest{Ref: tag})
	if err != nil {
		t.Fatal(err)
	}
	byDigest := reg.host() + "/dir/app@" + outer.Digest.String()
	want := &Image{ID: config.Digest.String(), Tags: []string{tag}, Digests: []string{byDigest}, Passwd: []byte("root:x:0:0")}
	got := &Image{ID: img.ID, Tags: img.Tags, Digests: img.Digests, Passwd: img.Passwd}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	if img.Config.Config.User != "1:2" || img.Size < 1<<20 || img.Manifest != m.Digest.String() {
		t.Errorf("user %q, size %d, target %s", img.Config.Config.User, img.Size, img.Manifest)
	}

	// Again, by digest: no layer is fetched a second time, nothing is written but a name.
	before := reg.count("GET", reg.layers(t, m)[0])
	again, err := s.Pull(t.Context(), PullRequest{Ref: byDigest})
	if err != nil || again.ID != img.ID {
		t.Fatalf("pull by digest = %v, %v", again, err)
	}
	if after := reg.count("GET", reg.layers(t, m)[0]); after != before {
		t.Errorf("layer was fetched again: %d → %d", before, after)
	}
	for _, ref := range []string{tag, byDigest, img.ID, strings.TrimPrefix(img.ID, "sha256:"), img.ID[7:17]} {
		if found, ok := s.Get(ref); !ok || found.ID != img.ID {
			t.Errorf("Get(%q) = %v, %v", ref, found, ok)
		}
	}
	for _, ref := range []string{"", "app", "sha256:" + strings.Repeat("0", 64), tag + "x", "../../etc", byDigest[:len(byDigest)-1] + "z"} {
		if found, ok := s.Get(ref); ok {
			t.Errorf("Get(%q) = %v, want nothing", ref, found.ID)
		}
	}
	if err := s.Remove(t.Context(), tag); err != nil {
		t.Fatal(err)
	}
	empty(t, s)
	if err := s.Remove(t.Context(), tag); err != nil {
		t.Errorf("removing what is absent: %v", err)
	}
}

func TestDockerMediaTypes(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	m, config := reg.image(t, "", spec{layers: [][]byte{layerTar(t, "f a 1")}, docker: true})
	reg.manifest(dockerList, "app:latest", index(dockerList, on(m, amd64)))
	img, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/app"})
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != config.Digest.String() {
		t.Errorf("id = %s, want %s", img.ID, config.Digest)
	}
}

// layers reads a manifest back for its layers' digests.
func (f *fakeRegistry) layers(t *testing.T, m ispec.Descriptor) []digest.Digest {
	t.Helper()
	var parsed ispec.Manifest
	if err := json.Unmarshal(f.docs[m.Digest.String()].data, &parsed); err != nil {
		t.Fatal(err)
	}
	var list []digest.Digest
	for _, l := range parsed.Layers {
		list = append(list, l.Digest)
	}
	return list
}

func TestTagMoves(t *testing.T) {
	reg := newRegistry(t)
	root := t.TempDir()
	s := openStore(t, testConfig(root))
	ref := reg.host() + "/app:latest"
	pull := func() *Image {
		img, err := s.Pull(t.Context(), PullRequest{Ref: ref})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	shared := layerTar(t, "f shared 1")
	reg.image(t, "app:latest", spec{layers: [][]byte{shared, layerTar(t, "f v 1")}})
	first := pull()
	reg.image(t, "app:latest", spec{layers: [][]byte{shared, layerTar(t, "f v 2")}})
	second := pull()
	check := func() {
		t.Helper()
		now, _ := s.Get(ref)
		old, _ := s.Get(first.ID)
		if now == nil || now.ID != second.ID || old == nil || len(old.Tags) != 0 || len(old.Digests) != 1 {
			t.Errorf("tag is at %+v, the first image is %+v", now, old)
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, testConfig(root))
	check()
	if err := s.Remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	rootfs, err := s.Lend(second.ID, "c") // the shared layer must have stayed
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, overlay(t, rootfs.Lower)); len(got) != 3 {
		t.Errorf("tree = %q", got)
	}
}

func TestWrongPlatform(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	m, _ := reg.image(t, "single:1", spec{layers: [][]byte{layerTar(t, "f a 1")}, platform: arm64})
	reg.manifest(ispec.MediaTypeImageIndex, "multi:1", index(ispec.MediaTypeImageIndex, on(m, arm64), on(m, ispec.Platform{OS: "linux", Architecture: "s390x"}), on(m, unknown)))
	for name, offered := range map[string]string{"single:1": "linux/arm64", "multi:1": "linux/arm64, linux/s390x"} {
		_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/" + name})
		if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "wanted linux/amd64, offered "+offered) || !strings.Contains(err.Error(), " sha256:") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
	empty(t, s)
}

func TestBadImages(t *testing.T) {
	reg := newRegistry(t)
	good, evil := layerTar(t, "f a 1"), layerTar(t, "f ../evil 1")
	m, config := reg.image(t, "good:1", spec{layers: [][]byte{good}})
	layer := reg.layers(t, m)[0]
	reg.image(t, "evil:1", spec{layers: [][]byte{good, evil}})

	noDigest := reg.blobs[layer]
	manifest := func(change func(*ispec.Manifest)) ispec.Manifest {
		var mm ispec.Manifest
		if err := json.Unmarshal(reg.docs[m.Digest.String()].data, &mm); err != nil {
			t.Fatal(err)
		}
		change(&mm)
		return mm
	}
	put := func(name string, change func(*ispec.Manifest)) {
		reg.manifest(ispec.MediaTypeImageManifest, name, manifest(change))
	}
	put("short:1", func(m *ispec.Manifest) { m.Layers[0].Size += 100 })
	put("long:1", func(m *ispec.Manifest) { m.Layers[0].Size -= 10 })
	wrong := digest.FromString("wrong")
	reg.blobs[wrong] = noDigest
	put("mismatch:1", func(m *ispec.Manifest) { m.Layers[0].Digest = wrong })
	put("gone:1", func(m *ispec.Manifest) { m.Layers[0].Digest = digest.FromString("gone") })
	put("count:1", func(m *ispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) })
	put("path:1", func(m *ispec.Manifest) { m.Layers[0].Digest = "sha256:../../../../etc/passwd" })
	put("negative:1", func(m *ispec.Manifest) { m.Layers[0].Size = -1 })
	put("config:1", func(m *ispec.Manifest) { m.Config.Size-- })
	put("chart:1", func(m *ispec.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" })
	reg.manifest(ispec.MediaTypeImageManifest, "both:1", map[string]any{"schemaVersion": 2, "config": config, "layers": []int{}, "manifests": []int{}})
	reg.manifest("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema1:1", map[string]any{"schemaVersion": 1, "fsLayers": []int{}})
	reg.manifest("text/html", "page:1", map[string]any{"schemaVersion": 2})
	loop := reg.manifest(ispec.MediaTypeImageIndex, "", index(ispec.MediaTypeImageIndex, on(m, amd64)))
	for range maxNesting + 1 {
		loop = reg.manifest(ispec.MediaTypeImageIndex, "nested:1", index(ispec.MediaTypeImageIndex, loop))
	}

	tests := []struct {
		name, says string
		want       error
	}{
		{"evil:1", `entry "../evil"`, ErrCorrupt},
		{"short:1", layer.String(), ErrCorrupt},
		{"long:1", layer.String(), ErrCorrupt},
		{"mismatch:1", "digest mismatch", ErrCorrupt},
		{"gone:1", digest.FromString("gone").String(), ErrNotFound},
		{"count:1", "1 diff ids for 2 layers", ErrCorrupt},
		{"path:1", "layers[0]", ErrCorrupt},
		{"negative:1", "layers[0]: negative size", ErrCorrupt},
		{"config:1", config.Digest.String(), ErrCorrupt},
		{"chart:1", "helm", ErrUnsupported},
		{"both:1", "both a manifest and an index", ErrCorrupt},
		{"schema1:1", "schema 1", ErrUnsupported},
		{"page:1", `calls it "text/html"`, ErrUnsupported},
		{"nested:1", "more than 4 indexes", ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, testConfig(t.TempDir()))
			_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/" + tt.name})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v; want %v saying %q", err, tt.want, tt.says)
			}
			empty(t, s)
		})
	}
}

func TestTruncatedTransfer(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	var random strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&random, "%x", digest.FromString(fmt.Sprint(i)).Encoded()[i%60])
	}
	m, _ := reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a "+random.String())}})
	layer := reg.layers(t, m)[0]
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.String()) || r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Length", "5000") // a proxy that cut it off and counts what it has
		w.Write(reg.blobs[layer][:5000])
		return true
	})
	_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), layer.String()) || !strings.Contains(err.Error(), "truncated: 5000 of") {
		t.Errorf("error = %v", err)
	}
	empty(t, s)
	// A connection that breaks is another matter: it is taken up where it broke.
	broken := 0
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.String()) || r.Method != http.MethodGet || broken > 0 {
			return false
		}
		broken++
		w.Header().Set("Content-Length", fmt.Sprint(len(reg.blobs[layer])))
		w.Write(reg.blobs[layer][:5000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	if _, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"}); err != nil {
		t.Errorf("after a broken connection: %v", err)
	}
}

func TestRegistryThatHangs(t *testing.T) {
	reg := newRegistry(t)
	m, _ := reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a 1"), layerTar(t, "f b "+strings.Repeat("b", 5000))}, compress: []string{"none", "none"}})
	layers := reg.layers(t, m)
	cfg := testConfig(t.TempDir())
	cfg.Registry.StallTimeout = 300 * time.Millisecond
	s := openStore(t, cfg)
	hang := func(r *http.Request) { <-r.Context().Done() }
	faults := map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"resolve": func(_ http.ResponseWriter, r *http.Request) bool { hang(r); return true },
		"manifest": func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				hang(r)
			}
			return false
		},
		"in the middle of a layer": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, layers[1].String()) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(reg.blobs[layers[1]])))
			w.Write(reg.blobs[layers[1]][:2000])
			w.(http.Flusher).Flush()
			hang(r)
			return true
		},
	}
	for name, fault := range faults {
		reg.setFault(fault)
		start := time.Now()
		_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "host "+reg.host()+" sent nothing for 300ms") || !strings.Contains(err.Error(), reg.host()+"/x:1") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
	// The layer that was whole is kept for the next try, and used by it.
	s.Wait()
	before := reg.count("GET", layers[0])
	if before == 0 {
		t.Error("the first layer was never fetched")
	}
	reg.setFault(nil)
	if _, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"}); err != nil {
		t.Fatal(err)
	}
	if after := reg.count("GET", layers[0]); after != before {
		t.Errorf("finished layer fetched again: %d → %d", before, after)
	}
}

func TestRegistryThatIsNotThereOrFails(t *testing.T) {
	s := openStore(t, testConfig(t.TempDir()))
	reg := newRegistry(t)
	tests := []struct {
		name, ref string
		status    int
		want      error
	}{
		{"nobody listens", "127.0.0.1:1/x:1", 0, ErrUnavailable},
		{"no such host", "registry.invalid/x:1", 0, ErrUnavailable},
		{"unknown tag", reg.host() + "/x:nope", 0, ErrNotFound},
		{"server error", reg.host() + "/x:1", 500, ErrUnavailable},
		{"too many requests", reg.host() + "/x:1", 429, ErrUnavailable},
		{"forbidden", reg.host() + "/x:1", 403, ErrUnauthorized},
		{"bad reference", "Not/A Ref", 0, ErrInvalidReference},
		{"bad digest", "x@sha256:abc", 0, ErrInvalidReference},
		{"empty", "", 0, ErrInvalidReference},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
				if tt.status != 0 {
					http.Error(w, `{"errors":[{"code":"DENIED","message":"no way"}]}`, tt.status)
				}
				return tt.status != 0
			})
			_, err := s.Pull(t.Context(), PullRequest{Ref: tt.ref})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.ref) {
				t.Errorf("error = %v; want %v naming %q", err, tt.want, tt.ref)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	reg := newRegistry(t)
	reg.image(t, "private/x:1", spec{layers: [][]byte{layerTar(t, "f a 1")}})
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:pass"))
	wantBasic := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == basic {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	wantBearer := func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			ok := r.FormValue("password") == "pass" || r.FormValue("refresh_token") == "refresh"
			if !ok || !strings.Contains(r.FormValue("scope"), "repository:private/x:pull") {
				http.Error(w, "{}", http.StatusForbidden)
				return true
			}
			fmt.Fprint(w, `{"token":"T","access_token":"T"}`)
			return true
		case r.Header.Get("Authorization") == "Bearer T":
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s",scope="repository:private/x:pull"`, reg.URL+"/token"))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	b64 := base64.StdEncoding.EncodeToString([]byte("user:pass"))
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		auth  *criapi.AuthConfig
		want  error
	}{
		{"basic", wantBasic, &criapi.AuthConfig{Username: "user", Password: "pass"}, nil},
		{"basic in one field", wantBasic, &criapi.AuthConfig{Auth: b64}, nil},
		{"for this server", wantBasic, &criapi.AuthConfig{Auth: b64, ServerAddress: "http://" + reg.host() + "/v1/"}, nil},
		{"for another server", wantBasic, &criapi.AuthConfig{Auth: b64, ServerAddress: "elsewhere:5000"}, ErrUnauthorized},
		{"wrong password", wantBasic, &criapi.AuthConfig{Username: "user", Password: "no"}, ErrUnauthorized},
		{"none", wantBasic, nil, ErrUnauthorized},
		{"not base64", wantBasic, &criapi.AuthConfig{Auth: "§"}, ErrUnauthorized},
		{"token for a password", wantBearer, &criapi.AuthConfig{Username: "user", Password: "pass"}, nil},
		{"token for an identity token", wantBearer, &criapi.AuthConfig{IdentityToken: "refresh"}, nil},
		{"registry token", wantBearer, &criapi.AuthConfig{RegistryToken: "T"}, nil},
		{"wrong registry token", wantBearer, &criapi.AuthConfig{RegistryToken: "X"}, ErrUnauthorized},
		{"token refused", wantBearer, &criapi.AuthConfig{Username: "user", Password: "no"}, ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, testConfig(t.TempDir()))
			reg.setFault(tt.fault)
			_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/private/x:1", Auth: tt.auth})
			if !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "pass") {
				t.Errorf("error tells the password: %v", err)
			}
		})
	}
}

func TestMirrorFromHostsToml(t *testing.T) {
	dead, mirror := newRegistry(t), newRegistry(t)
	dead.Close()
	mirror.image(t, "library/x:1", spec{layers: [][]byte{layerTar(t, "f a 1")}})
	certs := t.TempDir()
	dir := filepath.Join(certs, "example.invalid")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf("server = \"http://example.invalid\"\n[host.%q]\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", dead.URL, mirror.URL)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t.TempDir())
	cfg.Registry.ConfigDir = certs
	s := openStore(t, cfg)
	img, err := s.Pull(t.Context(), PullRequest{Ref: "example.invalid/library/x:1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Tags) != 1 || img.Tags[0] != "example.invalid/library/x:1" {
		t.Errorf("tags = %v: the name must not be the mirror's", img.Tags)
	}
}

// TestBadHostsToml: the registry itself is not asked in the place of a mirror that cannot be read.
func TestBadHostsToml(t *testing.T) {
	reg := newRegistry(t)
	reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a 1")}})
	certs := t.TempDir()
	dir := filepath.Join(certs, reg.host())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t.TempDir())
	cfg.Registry.ConfigDir = certs
	s := openStore(t, cfg)
	reg.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		t.Errorf("the registry is asked: %s %s", r.Method, r.URL)
		return false
	})
	file := filepath.Join(dir, "hosts.toml")
	pull := func(text string) error {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
		return err
	}
	for _, tc := range []struct{ name, text, words string }{
		{"not TOML", "server = \"http://127.0.0.1:1\"\n[host", file},
		{"wrong type", "server = 5\n", file},
		{"unknown capability", "[host.\"http://127.0.0.1:1\"]\ncapabilities = [\"pul\"]\n", "pul"},
		{"certificate that is not there", "[host.\"https://127.0.0.1:1\"]\nca = \"ca.pem\"\n", "ca.pem"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := pull(tc.text)
			if err == nil || !strings.Contains(err.Error(), "configuration of host "+reg.host()) || !strings.Contains(err.Error(), tc.words) || errors.Is(err, ErrUnavailable) {
				t.Errorf("pull: %v", err)
			}
		})
	}
	reg.setFault(nil)
	if err := pull(fmt.Sprintf("server = %q\n", reg.URL)); err != nil {
		t.Errorf("pull once the file is mended: %v", err)
	}
}

func TestConcurrentPullsJoin(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	shared := layerTar(t, "f shared "+strings.Repeat("x", 1<<20))
	m, _ := reg.image(t, "a:1", spec{layers: [][]byte{shared, layerTar(t, "f a 1")}})
	reg.image(t, "b:1", spec{layers: [][]byte{shared, layerTar(t, "f b 1")}})
	reg.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		time.Sleep(30 * time.Millisecond) // long enough for all to be under way
		return false
	})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/" + []string{"a:1", "b:1"}[i%2]}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range reg.layers(t, m) {
		if n := reg.count("GET", l); n != 1 {
			t.Errorf("layer %s was fetched %d times", l, n)
		}
	}
	if len(s.List()) != 2 {
		t.Errorf("images: %v", s.List())
	}
}

func TestCancelledPullKeepsFinishedLayers(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	m, _ := reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a 1"), layerTar(t, "f b 1")}})
	layers := reg.layers(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	reg.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, layers[1].String()) {
			time.AfterFunc(200*time.Millisecond, cancel)
			<-r.Context().Done()
			return true
		}
		return false
	})
	if _, err := s.Pull(ctx, PullRequest{Ref: reg.host() + "/x:1"}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error = %v, want context.Canceled", err)
	}
	s.Wait()
	if tmp, _ := os.ReadDir(filepath.Join(s.cfg.Root, "tmp")); len(tmp) > 0 {
		t.Errorf("tmp/ holds %v", tmp)
	}
	reg.setFault(nil)
	if _, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"}); err != nil {
		t.Fatal(err)
	}
	if n := reg.count("GET", layers[0]); n != 1 {
		t.Errorf("finished layer was fetched %d times", n)
	}
}

// FuzzManifest feeds any bytes to the parser of manifests, indexes and configs.
func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		`{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("a", 64) + `","size":2},"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("b", 64) + `","platform":{"os":"linux","architecture":"amd64"}}]}`,
		`{"schemaVersion":1,"fsLayers":[]}`, `{"manifests":[{}],"layers":[]}`, `[]`, `null`,
	} {
		f.Add("application/vnd.oci.image.index.v1+json", []byte(seed))
	}
	s := &Store{cfg: Config{Platform: amd64}, platform: matcher(amd64)}
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		doc, err := parseManifest(mediaType, data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("error is of no kind: %v", err)
			}
			return
		}
		if (doc.index == nil) == (doc.manifest == nil) {
			t.Fatal("neither or both of manifest and index")
		}
		if doc.index != nil {
			if d, err := s.pick(doc.index.Manifests); err == nil {
				if checkDescriptor(d) != nil {
					t.Error("picked a descriptor that does not hold")
				}
			}
		}
	})
}
