package images

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CacheDir is where built things are kept between runs, outside any checkout:
// $XDG_CACHE_HOME/cri-mini-test, else /var/cache/cri-mini-test.
//
//	debs/          packages as downloaded
//	images/<key>/  OCI layouts
//	bin/<key>/     critest, crictl, ginkgo, registry
//	tools.json     which of them the last build made or found
//	report/        logs and reports of the last run
//	run/<pid>/     state of runs that are under way
func CacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		base = "/var/cache"
	}
	dir := filepath.Join(base, "cri-mini-test")
	return dir, os.MkdirAll(dir, 0o755)
}

// kept is how many keys of a kind stay: some branches may take turns.
const kept = 4

// Used marks one keyed directory as used now and removes the siblings that
// were not used for longest, with the remains of builds that were killed.
func Used(dir string) {
	now := time.Now()
	_ = os.Chtimes(dir, now, now)
	entries, _ := os.ReadDir(filepath.Dir(dir))
	var old []os.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if !strings.HasPrefix(e.Name(), ".") {
			old = append(old, info)
		} else if now.Sub(info.ModTime()) > 24*time.Hour {
			os.RemoveAll(filepath.Join(filepath.Dir(dir), e.Name()))
		}
	}
	slices.SortFunc(old, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, info := range old[min(kept, len(old)):] {
		os.RemoveAll(filepath.Join(filepath.Dir(dir), info.Name()))
	}
}
