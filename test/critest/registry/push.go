package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/cri-mini/cri-mini/test/critest/images"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pusher copies images of a layout into a registry by the calls of the OCI
// distribution specification.
type pusher struct {
	layout images.Layout
	base   string
}

// pushLayout pushes every reference. The host of a reference is not part of
// the repository's name: a mirror is asked for /v2/<name> and is told the host
// by ?ns=, which this registry ignores. Two hosts with one name and different
// images would clash, and are an error.
func pushLayout(ctx context.Context, layout images.Layout, base string) error {
	refs, err := layout.Refs()
	if err != nil {
		return err
	}
	p := pusher{layout: layout, base: base}
	pushed := map[string]ispec.Descriptor{}
	for ref, list := range refs {
		_, name, tag := images.SplitRef(ref)
		if before, ok := pushed[name+":"+tag]; ok && before.Digest != list.Digest {
			return fmt.Errorf("push %s: another host of the layout has a different %s:%s", ref, name, tag)
		}
		pushed[name+":"+tag] = list
		if err := p.push(ctx, name, tag, list); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
	}
	return nil
}

// push sends what a manifest points at, then the manifest: the registry
// refuses a manifest whose parts it lacks.
func (p pusher) push(ctx context.Context, name, tag string, d ispec.Descriptor) error {
	manifests, blobs, err := p.layout.Children(d)
	if err != nil {
		return err
	}
	for _, child := range manifests {
		if err := p.push(ctx, name, child.Digest.String(), child); err != nil {
			return err
		}
	}
	for _, blob := range blobs {
		if err := p.pushBlob(ctx, name, blob); err != nil {
			return err
		}
	}
	data, err := p.layout.Blob(d.Digest)
	if err != nil {
		return err
	}
	_, err = p.call(ctx, request{http.MethodPut, p.base + "/v2/" + name + "/manifests/" + tag, d.MediaType, data, http.StatusCreated})
	return err
}

func (p pusher) pushBlob(ctx context.Context, name string, d ispec.Descriptor) error {
	at := p.base + "/v2/" + name + "/blobs/"
	if _, err := p.call(ctx, request{method: http.MethodHead, url: at + d.Digest.String(), want: http.StatusOK}); err == nil {
		return nil
	}
	data, err := p.layout.Blob(d.Digest)
	if err != nil {
		return err
	}
	upload, err := p.call(ctx, request{method: http.MethodPost, url: at + "uploads/", want: http.StatusAccepted})
	if err != nil {
		return err
	}
	to, err := url.Parse(upload)
	if err != nil {
		return fmt.Errorf("read upload location: %w", err)
	}
	query := to.Query()
	query.Set("digest", d.Digest.String())
	to.RawQuery = query.Encode()
	_, err = p.call(ctx, request{http.MethodPut, to.String(), "application/octet-stream", data, http.StatusCreated})
	return err
}

type request struct {
	method, url, contentType string
	body                     []byte
	want                     int
}

// call makes one request and returns the Location of the answer.
func (p pusher) call(ctx context.Context, r request) (location string, err error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return "", err
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != r.want {
		return "", fmt.Errorf("%s %s: %s: %s", r.method, r.url, resp.Status, bytes.TrimSpace(answer))
	}
	return resp.Header.Get("Location"), nil
}

// writeHosts writes <dir>/<host>/hosts.toml for each host of the layout, in
// the form of containerd's certs.d (docs/hosts.md there).
func writeHosts(layout images.Layout, dir, base string) error {
	if dir == "" {
		return nil
	}
	refs, err := layout.Refs()
	if err != nil {
		return err
	}
	hosts := map[string]bool{}
	for ref := range refs {
		host, _, _ := strings.Cut(ref, "/")
		hosts[host] = true
	}
	names := make([]string, 0, len(hosts))
	for host := range hosts {
		names = append(names, host)
	}
	sort.Strings(names)
	text := fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", base, base)
	for _, host := range names {
		if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
