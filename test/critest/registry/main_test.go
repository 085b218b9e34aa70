package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-mini/cri-mini/test/critest/images"
	"github.com/opencontainers/go-digest"
)

// TestServesWhatWasPushed pulls every image of the real layout as a mirror
// client does, with ?ns=, and checks each digest.
func TestServesWhatWasPushed(t *testing.T) {
	cache, err := images.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	layout, err := images.Build(t.Context(), cache, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"", t.TempDir()} {
		server := httptest.NewServer(newHandler(t.Context(), root))
		defer server.Close()
		if err := pushLayout(t.Context(), layout, server.URL); err != nil {
			t.Fatal(err)
		}
		refs, err := layout.Refs()
		if err != nil {
			t.Fatal(err)
		}
		for ref, list := range refs {
			host, name, tag := images.SplitRef(ref)
			body, contentType := get(t, server.URL+"/v2/"+name+"/manifests/"+tag+"?ns="+host, list.MediaType)
			if digest.FromBytes(body) != list.Digest || contentType != list.MediaType {
				t.Errorf("%s: got %s %s, want %s %s", ref, contentType, digest.FromBytes(body), list.MediaType, list.Digest)
			}
			manifests, _, err := layout.Children(list)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range manifests {
				_, blobs, err := layout.Children(m)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range blobs {
					body, _ := get(t, server.URL+"/v2/"+name+"/blobs/"+b.Digest.String(), "")
					if digest.FromBytes(body) != b.Digest {
						t.Errorf("%s: blob %s came back as %s", ref, b.Digest, digest.FromBytes(body))
					}
				}
			}
		}
	}
}

func get(t *testing.T, url, accept string) (body []byte, contentType string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v %.200s", url, resp.Status, err, body)
	}
	return body, resp.Header.Get("Content-Type")
}

func TestListenRefusesOtherAddresses(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "localhost:0", "192.0.2.1:0"} {
		if l, err := listen(t.Context(), address); err == nil {
			l.Close()
			t.Errorf("listen(%q) succeeded", address)
		}
	}
}

func TestWriteHosts(t *testing.T) {
	layout, dir := t.TempDir(), t.TempDir()
	index := `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"a.example/x:1"}},
		{"annotations":{"org.opencontainers.image.ref.name":"b.example/x:1"}}]}`
	if err := os.WriteFile(filepath.Join(layout, "index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(images.Layout{Dir: layout}, dir, "http://127.0.0.1:5000"); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"a.example", "b.example"} {
		data, err := os.ReadFile(filepath.Join(dir, host, "hosts.toml"))
		if err != nil || !strings.Contains(string(data), `[host."http://127.0.0.1:5000"]`) {
			t.Errorf("%s: %v %s", host, err, data)
		}
	}
}
