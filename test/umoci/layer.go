package umoci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// epoch is the time of entries that have none of their own.
var epoch = time.Unix(1_600_000_000, 0)

// entry is a member of a layer's tar; with a body it is a file.
type entry struct {
	tar.Header
	body string
}

func (e entry) owned(uid, gid int) entry  { e.Uid, e.Gid = uid, gid; return e }
func (e entry) at(t time.Time) entry      { e.ModTime = t; return e }
func (e entry) format(f tar.Format) entry { e.Format = f; return e }
func (e entry) xattr(name, val string) entry {
	records := map[string]string{"SCHILY.xattr." + name: val}
	for k, v := range e.PAXRecords {
		records[k] = v
	}
	e.PAXRecords = records
	return e
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

func file(name, body string, mode int64) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body}
}

func symlink(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}}
}

func link(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}}
}

func node(name string, typeflag byte, major, minor int64) entry {
	return entry{Header: tar.Header{Typeflag: typeflag, Name: name, Mode: 0o640, Devmajor: major, Devminor: minor}}
}

// gone is a whiteout, opaque one of all that the layers below have in a directory.
func gone(name string) entry {
	return file(path.Join(path.Dir(name), ".wh."+path.Base(name)), "", 0o600)
}
func opaque(name string) entry { return file(path.Join(name, ".wh..wh..opq"), "", 0o600) }

// pack writes a tar.
func pack(entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.ModTime.IsZero() {
			h.ModTime = epoch
		}
		if h.Format == tar.FormatUnknown && (h.PAXRecords != nil || h.ModTime.Nanosecond() != 0) {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return b.Bytes(), w.Close()
}

// installed gives the files of Debian packages as they are on this machine: setuid programs, hard links, capabilities.
func installed(packages ...string) ([]entry, error) {
	var entries []entry
	first := map[[2]uint64]string{} // hard links
	seen := map[string]bool{}
	for _, p := range packages {
		out, err := exec.Command("dpkg", "-L", p).Output()
		if err != nil {
			return nil, fmt.Errorf("list files of package %s: %w", p, err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			name := lines.Text()
			fi, err := os.Lstat(name)
			if err != nil || seen[name] || !strings.HasPrefix(name, "/") || name == "/." {
				continue // diverted, or left out by dpkg's path-exclude
			}
			seen[name] = true
			e, err := of(name, fi, first)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func of(name string, fi os.FileInfo, first map[[2]uint64]string) (entry, error) {
	to := ""
	if fi.Mode()&os.ModeSymlink != 0 {
		to, _ = os.Readlink(name)
	}
	h, err := tar.FileInfoHeader(fi, to)
	if err != nil {
		return entry{}, fmt.Errorf("%s: %w", name, err)
	}
	h.Name = strings.TrimPrefix(name, "/")
	if fi.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname, h.AccessTime, h.ChangeTime, h.Format = "", "", time.Time{}, time.Time{}, tar.FormatPAX
	e := entry{Header: *h}
	if !fi.Mode().IsRegular() {
		return e, nil
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if other, ok := first[key]; ok {
			e.Typeflag, e.Linkname, e.Size = tar.TypeLink, other, 0
			return e, nil
		}
		first[key] = h.Name
	}
	body, err := os.ReadFile(name)
	if err != nil {
		return entry{}, err
	}
	e.body, e.Size = string(body), int64(len(body))
	val := make([]byte, 64)
	if n, err := unix.Lgetxattr(name, "security.capability", val); err == nil {
		e = e.xattr("security.capability", string(val[:n]))
	}
	return e, nil
}
