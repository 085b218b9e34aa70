package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxPasswd bounds what is read of a container's /etc/passwd, which is whoever's who made the image.
const maxPasswd = 1 << 20

// setHome gives a process without HOME the directory that the container's /etc/passwd has for its user, or /, as runc
// does: programs rely on it, and callers of runc leave it to the runtime. passwd opens that file.
func setHome(p *specs.Process, passwd func() (*os.File, error)) {
	if slices.ContainsFunc(p.Env, func(s string) bool { return strings.HasPrefix(s, "HOME=") && s != "HOME=" }) {
		return
	}
	home := "/"
	if f, err := passwd(); err == nil {
		text, _ := io.ReadAll(io.LimitReader(f, maxPasswd))
		f.Close()
		home = homeOf(text, p.User.UID)
	}
	p.Env = append(p.Env, "HOME="+home)
}

// homeOf looks a user up in the text of a passwd file (passwd(5)).
func homeOf(passwd []byte, uid uint32) string {
	for line := range bytes.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) < 6 {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil && uint32(n) == uid && f[5] != "" && !strings.ContainsRune(f[5], 0) {
			return f[5]
		}
	}
	return "/"
}

// passwdOf opens the /etc/passwd that the container of a bundle will see: of its root, or of what is mounted over it.
func passwdOf(spec *specs.Spec, bundle string) func() (*os.File, error) {
	return func() (*os.File, error) {
		for _, m := range slices.Backward(spec.Mounts) {
			switch filepath.Clean(m.Destination) {
			case "/etc/passwd":
				return openIn(filepath.Dir(m.Source), filepath.Base(m.Source))
			case "/etc":
				return openIn(m.Source, "passwd")
			}
		}
		if spec.Root == nil {
			return nil, os.ErrNotExist
		}
		root := spec.Root.Path
		if !filepath.IsAbs(root) {
			root = filepath.Join(bundle, root)
		}
		return openIn(root, "etc/passwd")
	}
}

// openIn opens a regular file below a root directory; no link of the image leads out of that.
func openIn(root, path string) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return nil, os.ErrNotExist
	}
	return os.NewFile(uintptr(fd), path), nil
}
