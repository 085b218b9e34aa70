package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

const runtimeTools = "github.com/opencontainers/runtime-tools"

// inRootfs is what the programs put into each bundle, from their working directory.
const inRootfs = "runtimetest"

// rootfsTar is the root file system that comes with the module.
var rootfsTar = "rootfs-" + runtime.GOARCH + ".tar.gz"

// build compiles all programs into the cache, once for each version of them, and
// gives the directory: rootfs tar and runtimetest, and the programs below bin.
func build(ctx context.Context, module string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum", "tools.go", "run/build.go"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	final := filepath.Join(cacheDir(), "oci-"+hex.EncodeToString(sum.Sum(nil))[:12])
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	fmt.Fprintf(os.Stderr, "oci: building the validation programs into %s (a minute or two, once)\n", final)
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(final), ".oci-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := compileAll(ctx, module, work); err != nil {
		return "", err
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return "", err
	}
	err = os.Rename(work, final)
	if errors.Is(err, fs.ErrExist) { // another run was faster
		err = nil
	}
	return final, err
}

func compileAll(ctx context.Context, module, work string) error {
	list, err := goTool(ctx, module, "list", runtimeTools+"/validation/...")
	if err != nil {
		return err
	}
	flags := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"}
	args := append(flags[:len(flags):len(flags)], filepath.Join(work, "bin")+"/")
	for name := range strings.FieldsSeq(list) {
		if !strings.HasSuffix(name, "/util") {
			args = append(args, name)
		}
	}
	if _, err := goTool(ctx, module, args...); err != nil {
		return err
	}
	args = append(flags[:len(flags):len(flags)], work+"/", runtimeTools+"/cmd/"+inRootfs)
	if _, err := goTool(ctx, module, args...); err != nil {
		return err
	}
	dir, err := goTool(ctx, module, "list", "-m", "-f", "{{.Dir}}", runtimeTools)
	if err != nil {
		return err
	}
	tar, err := os.ReadFile(filepath.Join(dir, rootfsTar))
	if err != nil {
		return fmt.Errorf("find root file system of %s: %w", runtimeTools, err)
	}
	return os.WriteFile(filepath.Join(work, rootfsTar), tar, 0o644)
}

// programs lists the built programs that are asked for.
func programs(dir string, focus *regexp.Regexp) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "bin"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if focus.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no program matches %q", focus)
	}
	return names, nil
}

// cacheDir is the Makefile's CACHE.
func cacheDir() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		base = "/var/cache"
		if home, err := os.UserHomeDir(); err == nil && os.Getuid() != 0 {
			base = filepath.Join(home, ".cache")
		}
	}
	return filepath.Join(base, "cri-mini-test")
}

func moduleDir(ctx context.Context) (string, error) {
	file, err := goTool(ctx, ".", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(file)
	if _, err := os.Stat(filepath.Join(dir, "run", "build.go")); err != nil {
		return "", fmt.Errorf("find module: run this in test/oci: %w", err)
	}
	return dir, nil
}

// goTool runs the go command in a module and returns what it prints.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run go %s: %w\n%s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
