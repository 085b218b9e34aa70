package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/cri-mini/cri-mini/test/critest/images"
)

// tools says where the built programs and images are.
type tools struct {
	Bin    string // directory with critest, crictl, ginkgo and registry
	Layout string // OCI layout of the images
}

func (t tools) path(name string) string { return filepath.Join(t.Bin, name) }

func (t tools) String() string {
	return fmt.Sprintf("critest  %s\ncrictl   %s\nregistry %s\nimages   %s\n",
		t.path("critest"), t.path("crictl"), t.path("registry"), t.Layout)
}

const criTools = "sigs.k8s.io/cri-tools"

// findTools builds what is missing, or takes what the last build left. The
// record of the last build has paths relative to the cache, so that a cache
// can be copied to a machine without Go.
func findTools(ctx context.Context, cache string, prebuilt bool) (tools, error) {
	record := filepath.Join(cache, "tools.json")
	var rel tools
	if prebuilt {
		data, err := os.ReadFile(record)
		if err != nil {
			return tools{}, fmt.Errorf("find built tools: %w; run build first", err)
		}
		if err := json.Unmarshal(data, &rel); err != nil {
			return tools{}, fmt.Errorf("find built tools: %s: %w", record, err)
		}
		return tools{Bin: filepath.Join(cache, rel.Bin), Layout: filepath.Join(cache, rel.Layout)}, nil
	}
	began := time.Now()
	layout, err := images.Build(ctx, cache, logf)
	if err != nil {
		return tools{}, err
	}
	bin, err := buildPrograms(ctx, cache, layout)
	if err != nil {
		return tools{}, err
	}
	logf("images and programs are ready after %s", time.Since(began).Round(10*time.Millisecond))
	rel.Bin, _ = filepath.Rel(cache, bin)
	rel.Layout, _ = filepath.Rel(cache, layout.Dir)
	data, err := json.Marshal(rel)
	if err != nil {
		return tools{}, err
	}
	return tools{Bin: bin, Layout: layout.Dir}, os.WriteFile(record, data, 0o644)
}

// buildPrograms builds into cache/bin/<key>, once per key.
func buildPrograms(ctx context.Context, cache string, layout images.Layout) (string, error) {
	module, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	digest, err := digestOf(layout)
	if err != nil {
		return "", err
	}
	key, err := sourceKey(module, digest)
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, "bin", key)
	defer images.Used(final)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	logf("building critest, crictl, ginkgo and registry into %s (minutes, the first time)", final)
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(final), ".building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := compileAll(ctx, module, work, digest); err != nil {
		return "", err
	}
	if err := os.Chmod(filepath.Join(work, "out"), 0o755); err != nil {
		return "", err
	}
	return final, os.Rename(filepath.Join(work, "out"), final)
}

func compileAll(ctx context.Context, module, work, digest string) error {
	modfile, version, err := copyCriTools(ctx, module, work, digest)
	if err != nil {
		return err
	}
	out := filepath.Join(work, "out") + "/"
	flags := []string{
		"-modfile=" + modfile, "-mod=mod", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X " + criTools + "/pkg/version.Version=" + version,
	}
	if _, err := goTool(ctx, append(append([]string{"test", "-c", "-o", out + "critest"}, flags...), criTools+"/cmd/critest")...); err != nil {
		return err
	}
	_, err = goTool(ctx, append(append([]string{"build", "-o", out}, flags...),
		criTools+"/cmd/crictl", "github.com/onsi/ginkgo/v2/ginkgo", "./registry")...)
	return err
}

// upstreamDigest finds the digest that critest's source has for Linux.
var upstreamDigest = regexp.MustCompile(`"test-image-digest@sha256:[0-9a-f]{64}"`)

// copyCriTools copies the module, changes that one constant in the copy, and
// writes a go.mod that uses it: no build of ours can have the digest of
// upstream's image. (go build -overlay refuses files of the module cache.)
func copyCriTools(ctx context.Context, module, work, digest string) (modfile, version string, err error) {
	// go list gives a module that nobody has downloaded yet no directory.
	if _, err := goTool(ctx, "mod", "download", criTools); err != nil {
		return "", "", err
	}
	out, err := goTool(ctx, "list", "-m", "-f", "{{.Version}} {{.Dir}}", criTools)
	if err != nil {
		return "", "", err
	}
	version, dir, _ := strings.Cut(out, " ")
	copied := filepath.Join(work, "cri-tools")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		return "", "", fmt.Errorf("copy cri-tools: %w", err)
	}
	file := filepath.Join(copied, "pkg", "validate", "consts.go")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	if n := len(upstreamDigest.FindAll(text, -1)); n != 1 {
		return "", "", fmt.Errorf("replace digest in %s: found %d of %s, want one", file, n, upstreamDigest)
	}
	text = upstreamDigest.ReplaceAll(text, []byte(`"test-image-digest@`+digest+`"`))
	if err := errors.Join(os.Chmod(file, 0o644), os.WriteFile(file, text, 0o644)); err != nil {
		return "", "", err
	}
	return writeModfile(module, work, copied, version)
}

func writeModfile(module, work, copied, version string) (string, string, error) {
	modfile := filepath.Join(work, "go.mod")
	text, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", "", err
	}
	sums, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", "", err
	}
	text = fmt.Appendf(text, "\nreplace %s => %s\n", criTools, copied)
	return modfile, version, errors.Join(os.WriteFile(modfile, text, 0o644), os.WriteFile(filepath.Join(work, "go.sum"), sums, 0o644))
}

func digestOf(layout images.Layout) (string, error) {
	refs, err := layout.Refs()
	if err != nil {
		return "", err
	}
	d, ok := refs[images.DigestRepo+":latest"]
	if !ok {
		return "", fmt.Errorf("read image layout %s: no %s", layout.Dir, images.DigestRepo)
	}
	return d.Digest.String(), nil
}

// sourceKey covers all that the programs are built from.
func sourceKey(module, digest string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, digest)
	for _, part := range []string{"go.mod", "go.sum", "images", "registry", "run/tools.go"} {
		err := filepath.WalkDir(filepath.Join(module, part), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go") {
				return err
			}
			data, err := os.ReadFile(name)
			fmt.Fprintf(sum, "%s %d\n%s", d.Name(), len(data), data)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func moduleDir(ctx context.Context) (string, error) {
	file, err := goTool(ctx, "env", "GOMOD")
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(file)
	if _, err := os.Stat(filepath.Join(dir, "registry", "main.go")); err != nil {
		return "", fmt.Errorf("find module: run this in test/critest: %w", err)
	}
	return dir, nil
}

// goTool runs the go command in the module and returns what it prints.
func goTool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run go %s: %w\n%s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, "critest: "+format+"\n", args...) }
