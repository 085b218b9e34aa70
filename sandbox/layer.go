package sandbox

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// layerEvery is how old a layer's size may be before a question has it measured anew.
	layerEvery = 10 * time.Second
	// layerShare bounds the work on one layer: it rests this many times as long as it took.
	layerShare = 50
	// layerWait is how long a question waits for layers that were never measured.
	layerWait = 200 * time.Millisecond
)

// layerUse is what a writable layer had on disk at a time.
type layerUse struct {
	at            time.Time
	took          time.Duration
	bytes, inodes uint64
}

// layers measures writable layers, file by file, behind the backs of those who ask: one at a time, never again
// before a rest in proportion, and not at all while nobody asks.
type layers struct {
	mu     sync.Mutex
	known  map[string]layerUse
	queued map[string]chan struct{} // by directory; closed when it is measured
	queue  chan string
}

// layerQueue is how many layers may wait; those beyond are measured at the next question.
const layerQueue = 4096

func newLayers() *layers {
	l := &layers{known: map[string]layerUse{}, queued: map[string]chan struct{}{}, queue: make(chan string, layerQueue)}
	go l.work()
	return l
}

func (l *layers) work() {
	for dir := range l.queue {
		began := time.Now()
		use, ok := measure(dir)
		use.at, use.took = began, time.Since(began)
		l.tell(dir, use, ok)
	}
}

// tell keeps what was measured, unless the layer is gone: forget came after its removal, perhaps while it was measured.
func (l *layers) tell(dir string, use layerUse, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ok && unix.Access(dir, unix.F_OK) == nil {
		l.known[dir] = use
	} else {
		delete(l.known, dir)
	}
	close(l.queued[dir])
	delete(l.queued, dir)
}

// ask returns what is known of a layer, and has it measured when that is old. settled is when its container ended,
// zero for one that runs: what was measured since then stays true. The channel is nil, or closed when a layer that
// was never measured has been.
func (l *layers) ask(dir string, settled time.Time) (layerUse, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	use, ok := l.known[dir]
	if ok && (time.Since(use.at) < max(layerEvery, layerShare*use.took) || !settled.IsZero() && use.at.After(settled)) {
		return use, nil
	}
	done := l.queued[dir]
	if done == nil {
		select {
		case l.queue <- dir:
			done = make(chan struct{})
			l.queued[dir] = done
		default:
		}
	}
	if ok {
		return use, nil
	}
	return layerUse{}, done
}

func (l *layers) forget(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, dir)
}

// measure adds up the blocks and inodes below a directory; ok is false for one that is gone. Directories are opened
// below it without following links: what writes there at the same time, the container, leads nowhere else. An inode
// with n names counts a nth for each, for the layer has them all; no list of those seen is kept.
func measure(dir string) (use layerUse, ok bool) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return use, false
	}
	defer unix.Close(root)
	w := walker{root: root, buf: make([]byte, 32<<10)}
	var st unix.Stat_t
	if unix.Fstat(root, &st) == nil {
		w.count(&st)
	}
	for todo := []string{"."}; len(todo) > 0; {
		last := todo[len(todo)-1]
		todo = append(todo[:len(todo)-1], w.list(last)...)
	}
	return layerUse{bytes: uint64(math.Round(w.bytes)), inodes: uint64(math.Round(w.inodes))}, true
}

type walker struct {
	root          int
	buf           []byte
	bytes, inodes float64
}

func (w *walker) count(st *unix.Stat_t) {
	names := 1.0
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		names = float64(st.Nlink)
	}
	w.bytes += float64(st.Blocks) * 512 / names // st_blocks counts 512 bytes, whatever the file system's blocks
	w.inodes += 1 / names
}

// list counts what is in a directory and returns the directories in it. One that went meanwhile, or whose path has
// become longer than the kernel takes, is empty.
func (w *walker) list(dir string) (below []string) {
	fd, err := unix.Openat2(w.root, dir, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, w.buf)
		if err != nil || n <= 0 {
			return below
		}
		for rest := w.buf[:n]; len(rest) > direntName; {
			size := int(binary.NativeEndian.Uint16(rest[direntSize:]))
			name := unix.ByteSliceToString(rest[direntName:size])
			rest = rest[size:]
			var st unix.Stat_t
			if name == "." || name == ".." || unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue
			}
			w.count(&st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				below = append(below, filepath.Join(dir, name))
			}
		}
	}
}

// Offsets in a struct linux_dirent64 (getdents(2)): d_reclen and d_name.
const (
	direntSize = 16
	direntName = 19
)
