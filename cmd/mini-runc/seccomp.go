package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/runtime/seccomp"
)

// seccompDir holds compiled profiles. No container can have this name, see engine.CheckID.
const seccompDir = "@seccomp"

// seccompKept is how many there may be; a machine has a handful.
const seccompKept = 64

// seccomp compiles a profile for the compiler of plans. That takes libseccomp some 5 ms, so the result is kept
// below --root, named after what it depends on: the profile, the kernel, the library, this program.
// Without the library (needLibrary) only what is kept can be used.
func (a *app) seccomp(p *specs.LinuxSeccomp) (bpf []byte, flags uint64, description string, err error) {
	description = fmt.Sprintf("%s/%d-rules", p.DefaultAction, len(p.Syscalls))
	path := filepath.Join(a.root, seccompDir, a.seccompKey(p))
	if bpf, flags, ok := readFilter(path); ok {
		return bpf, flags, description, nil
	}
	if err := needLibrary(); err != nil {
		return nil, 0, "", err
	}
	if err := seccomp.CheckLibrary(); err != nil {
		return nil, 0, "", err
	}
	f, err := seccomp.Compile(p)
	if err != nil {
		return nil, 0, "", err
	}
	if a.dry {
		return f.BPF, uint64(f.Flags), description, nil
	}
	a.countFilter()
	if err := keepFilter(path, f.BPF, uint64(f.Flags)); err != nil {
		a.log.debugf("keep seccomp filter: %v", err)
	}
	return f.BPF, uint64(f.Flags), description, nil
}

// seccompCount is a file with one byte for each profile that was ever compiled below --root: appending needs no lock.
const seccompCount = "compiled"

func (a *app) countFilter() {
	dir := filepath.Join(a.root, seccompDir)
	if err := makeSeccompDir(dir); err != nil {
		return
	}
	f, err := os.OpenFile(filepath.Join(dir, seccompCount), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Write([]byte{'.'})
}

// compiledFilters is how many there were.
func (a *app) compiledFilters() int64 {
	info, err := os.Stat(filepath.Join(a.root, seccompDir, seccompCount))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (a *app) seccompKey(p *specs.LinuxSeccomp) string {
	bare := *p
	bare.ListenerPath, bare.ListenerMetadata = "", ""
	text, _ := json.Marshal(struct {
		Profile *specs.LinuxSeccomp
		Notify  bool
		Version string
		Library string
		Kernel  any
		Actions []string
	}{&bare, p.ListenerPath != "", version, libraryKey(), a.facts.Kernel, a.facts.SeccompActions})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// A kept filter is the flags, the instructions, and a SHA-256 of both: half a file is no filter.
func readFilter(path string) (bpf []byte, flags uint64, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) <= 8+sha256.Size {
		return nil, 0, false
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); string(sum[:]) != string(b[len(body):]) {
		return nil, 0, false
	}
	return body[8:], binary.LittleEndian.Uint64(body), true
}

func makeSeccompDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return nil
}

func keepFilter(path string, bpf []byte, flags uint64) error {
	dir := filepath.Dir(path)
	if err := makeSeccompDir(dir); err != nil {
		return err
	}
	forgetOldest(dir)
	body := append(binary.LittleEndian.AppendUint64(nil, flags), bpf...)
	sum := sha256.Sum256(body)
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(body, sum[:]...))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// forgetOldest makes room for one more.
func forgetOldest(dir string) {
	entries, err := os.ReadDir(dir)
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == seccompCount })
	for err == nil && len(entries) >= seccompKept {
		oldest, at := 0, time.Now()
		for i, e := range entries {
			if info, err := e.Info(); err == nil && info.ModTime().Before(at) {
				oldest, at = i, info.ModTime()
			}
		}
		_ = os.Remove(filepath.Join(dir, entries[oldest].Name()))
		entries = append(entries[:oldest], entries[oldest+1:]...)
	}
}
