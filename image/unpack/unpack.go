package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what one layer may make of a node. Zero fields mean the defaults.
type Limits struct {
	Bytes   int64 // file content; default 1 TiB
	Entries int64 // tar entries; default 5 million
}

func (l Limits) orDefault() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 1 << 40
	}
	if l.Entries <= 0 {
		l.Entries = 5_000_000
	}
	return l
}

// Tar unpacks an uncompressed layer tar into dir, which must exist and be empty. The stream may hold more than the
// archive (padding): it is left where the archive ends. On error dir is in no usable state; the caller removes it.
func Tar(ctx context.Context, dir string, r io.Reader, limits Limits) (Info, error) {
	return untar(ctx, dir, &recorder{r: r}, limits)
}

func untar(ctx context.Context, dir string, rec *recorder, limits Limits) (Info, error) {
	t, err := openTree(dir)
	if err != nil {
		return Info{}, err
	}
	defer t.close()
	u := &unpacker{
		tree:    t,
		limits:  limits.orDefault(),
		times:   make(map[string]time.Time),
		implied: make(map[string]bool),
		hiding:  make(map[string]bool),
		buf:     copyBuffers.Get().(*[]byte),
		rec:     rec,
	}
	defer copyBuffers.Put(u.buf)
	t.onMade, t.onCovers = u.made, setOpaque
	u.made(".", false)
	if err := u.run(ctx, tar.NewReader(rec)); err != nil {
		return Info{}, err
	}
	return u.finish()
}

// unpacker is one layer in progress.
type unpacker struct {
	tree    *tree
	limits  Limits
	info    Info
	bytes   int64                // file content so far, against limits.Bytes
	times   map[string]time.Time // directory (resolved path) → mtime, set at the end since each new child changes it
	implied map[string]bool
	hiding  map[string]bool // directories with whiteouts
	buf     *[]byte
	rec     *recorder
}

// made notes a directory that no entry has described so far. Its time is a constant, so that a layer always unpacks to
// the same directory.
func (u *unpacker) made(real string, covers bool) {
	u.times[real] = time.Unix(0, 0)
	u.info.Inodes++
	u.info.Size += blockSize
	if !covers {
		u.implied[real] = true
	}
}

// errCancelled keeps a cancellation, whatever its cause, apart from errors that the tar is to blame for.
var errCancelled = errors.New("cancelled")

func (u *unpacker) run(ctx context.Context, tr *tar.Reader) error {
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			if errors.Is(err, tar.ErrHeader) {
				return refuse("entry %d of the tar: %w", u.info.Entries+1, err)
			}
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", errCancelled, context.Cause(ctx))
		}
		if u.info.Entries++; u.info.Entries > u.limits.Entries {
			return refuse("more than %d entries", u.limits.Entries)
		}
		if err := u.entry(hdr, tr); err != nil {
			return entryError(hdr.Name, err)
		}
	}
}

// entry makes one tar entry, a whiteout or a file.
func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if err := checkHeader(hdr); err != nil {
		return err
	}
	if name == "." {
		return u.root(hdr)
	}
	if handled, err := u.whiteoutEntry(name); handled || err != nil {
		return err
	}
	parent, real, err := u.tree.dir(path.Dir(name), true)
	if err != nil {
		return err
	}
	at := &place{dirfd: parent, base: path.Base(name), real: path.Join(real, path.Base(name))}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.directory(at, hdr)
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse: // '\x00' is how old tars say TypeReg
		return u.regular(at, hdr, content)
	case tar.TypeSymlink:
		return u.symlink(at, hdr)
	case tar.TypeLink:
		return u.hardLink(at, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(at, hdr)
	}
	return refuse("unknown type %q", hdr.Typeflag)
}

// place is where an entry goes: dirfd is the tree's and holds until the next walk.
type place struct {
	dirfd int
	base  string
	real  string // resolved path below the root
}

// checkHeader refuses values that the kernel would take for something else: an owner of 2³²-1 means "leave it".
func checkHeader(hdr *tar.Header) error {
	const noID = 1<<32 - 1
	switch {
	case hdr.Size < 0:
		return refuse("negative size %d", hdr.Size)
	case hdr.Uid < 0 || hdr.Uid >= noID:
		return refuse("uid %d is out of range", hdr.Uid)
	case hdr.Gid < 0 || hdr.Gid >= noID:
		return refuse("gid %d is out of range", hdr.Gid)
	case hdr.Devmajor < 0 || hdr.Devmajor > 1<<12-1 || hdr.Devminor < 0 || hdr.Devminor > 1<<20-1:
		return refuse("device number %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
	}
	return nil
}

// finish sets the directories' times and tries the hard links once more whose target came after them.
func (u *unpacker) finish() (Info, error) {
	if err := u.retryLinks(); err != nil {
		return Info{}, err
	}
	// Only removals leave stale names in these maps; a name is looked up without following symlinks, so that a stale one
	// cannot touch something else.
	for p, at := range u.times {
		if err := u.setDirTime(p, at); err != nil {
			return Info{}, entryError(p, err)
		}
	}
	var err error
	if u.info.Implied, err = u.directories(u.implied); err != nil {
		return Info{}, err
	}
	if u.info.Hiding, err = u.directories(u.hiding); err != nil {
		return Info{}, err
	}
	return u.info, nil
}

// directories are those of the paths that still are one, sorted.
func (u *unpacker) directories(paths map[string]bool) (list []Path, err error) {
	for p := range paths {
		if ok, err := u.isDir(p); err != nil {
			return nil, entryError(p, err)
		} else if ok {
			list = append(list, Path(p))
		}
	}
	slices.Sort(list)
	return list, nil
}

func (u *unpacker) setDirTime(p string, at time.Time) error {
	if p == "." {
		return utimes(u.tree.root, ".", at, at)
	}
	fd, err := u.openReal(path.Dir(p))
	if err != nil {
		return ignoreGone(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstatat(fd, path.Base(p), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return utimes(fd, path.Base(p), at, at)
}

func (u *unpacker) isDir(p string) (bool, error) {
	fd, err := u.openReal(p)
	if err != nil {
		return false, ignoreGone(err)
	}
	return true, unix.Close(fd)
}

// openReal opens a directory by a path that this package resolved before; a symlink on the way means it is gone.
func (u *unpacker) openReal(p string) (int, error) {
	return unix.Openat2(u.tree.root, p, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// utimes sets access and modification time of a name without following it, in nanoseconds, utimensat(2).
func utimes(dirfd int, base string, atime, mtime time.Time) error {
	ts := []unix.Timespec{
		{Sec: atime.Unix(), Nsec: int64(atime.Nanosecond())},
		{Sec: mtime.Unix(), Nsec: int64(mtime.Nanosecond())},
	}
	if err := unix.UtimesNanoAt(dirfd, base, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// accessTime is the PAX atime, or else the mtime: a layer has no access of its own.
func accessTime(hdr *tar.Header) time.Time {
	if hdr.AccessTime.IsZero() {
		return modTime(hdr)
	}
	return hdr.AccessTime
}

func modTime(hdr *tar.Header) time.Time {
	if hdr.ModTime.IsZero() {
		return time.Unix(0, 0)
	}
	return hdr.ModTime
}

func isHidden(component string) bool { return strings.HasPrefix(component, whiteoutMeta) }
