// Package images builds the container images that critest pulls, as one OCI
// layout, from Debian packages and a few small static Go programs: none of
// upstream's registries is needed, and every byte is one this machine made or
// verified through apt. It is imported by the programs beside it.
//
// Invariant: the same packages, the same Go release and the same source give
// the same layout, byte for byte.
package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// source is this package and the programs that go into images: it is part of
// the key, and the programs are compiled from it.
//
//go:embed *.go prog
var source embed.FS

// Build returns the directory of the layout under cache, making it if no
// layout of the same source, packages and Go release is there. Packages lie
// in cache/debs and are downloaded once; remove that directory for newer ones.
func Build(ctx context.Context, cache string, logf func(string, ...any)) (Layout, error) {
	debs, err := fetchPackages(ctx, filepath.Join(cache, "debs"), logf)
	if err != nil {
		return Layout{}, err
	}
	key, err := cacheKey(debs)
	if err != nil {
		return Layout{}, err
	}
	final := Layout{Dir: filepath.Join(cache, "images", key)}
	defer Used(final.Dir)
	if _, err := os.Stat(filepath.Join(final.Dir, "index.json")); err == nil {
		return final, nil
	}
	logf("building images into %s", final.Dir)
	return final, buildInto(ctx, final.Dir, debs)
}

// cacheKey names a layout by all that it depends on.
func cacheKey(debs []string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH)
	for _, deb := range debs {
		fmt.Fprintln(sum, filepath.Base(deb))
	}
	err := fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.go") {
			return err
		}
		data, err := source.ReadFile(name)
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}

// buildInto writes beside the final place and renames, so that a layout which
// is there is a whole one.
func buildInto(ctx context.Context, final string, debs []string) error {
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(final), ".building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	pool, err := readPool(ctx, debs, work)
	if err != nil {
		return err
	}
	list, err := recipes(pool)
	if err != nil {
		return err
	}
	out := filepath.Join(work, "layout")
	l, err := newLayout(out)
	if err != nil {
		return err
	}
	for _, img := range list {
		if err := l.add(img); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	if err := os.Rename(out, final); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// readPool is everything the recipes take from: the packages, unpacked over
// each other, and under usr/share/critest what has no path of its own.
func readPool(ctx context.Context, debs []string, work string) (Tree, error) {
	pool := Tree{}
	for _, deb := range debs {
		tree, err := readPackage(ctx, deb)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(filepath.Base(deb), "busybox-static_") {
			tree = Tree{"usr/share/critest/busybox-static": tree["bin/busybox"]}
		}
		pool.Merge(tree)
	}
	for _, name := range []string{"pause", "nonewprivs"} {
		data, err := compile(ctx, name, work)
		if err != nil {
			return nil, err
		}
		pool.File("usr/share/critest/"+name, 0o755, data)
	}
	return pool, nil
}

// compile builds one program of prog/ without any trace of where.
func compile(ctx context.Context, name, work string) ([]byte, error) {
	text, err := source.ReadFile("prog/" + name + "/main.go")
	if err != nil {
		return nil, err
	}
	file, out := filepath.Join(work, name+".go"), filepath.Join(work, name)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, file)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s: %w: %s", name, err, bytes.TrimSpace(msg))
	}
	return os.ReadFile(out)
}
