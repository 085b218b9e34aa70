package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-mini/cri-mini/image/join"
	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/image/store"
	"github.com/cri-mini/cri-mini/image/unpack"
	"github.com/cri-mini/cri-mini/image/worker"
)

// Sentinels for errors.Is. Those of the registry and of blobs are the ones of the packages below.
var (
	ErrNotFound         = registry.ErrNotFound         // no such manifest at the registry, or no such image here
	ErrUnavailable      = registry.ErrUnavailable      // the registry cannot be reached, hangs or fails; worth a retry
	ErrUnauthorized     = registry.ErrUnauthorized     // credentials missing or refused
	ErrInvalidReference = registry.ErrInvalidReference // the name is no image name
	ErrCorrupt          = unpack.ErrCorrupt            // a blob is not what was promised; the error names it
	ErrPlatform         = errors.New("no image for this platform")
	ErrUnsupported      = errors.New("image of an unsupported kind")
	ErrNotDirectory     = store.ErrNotDirectory // a file where a directory was asked for
)

// Config says where images live and what they are for. Root must be set; zero values mean the defaults.
type Config struct {
	// Root is the store's own directory, made if missing.
	Root string
	// Platform is what images must run on; the default is this machine.
	Platform ispec.Platform
	// Registry says how registries are reached.
	Registry registry.Config
	// Fetches bounds the layers fetched and unpacked at one time, over all pulls; default two per CPU, at least 4.
	Fetches int
	// Limits bound what one layer may hold.
	Limits unpack.Limits
	// Worker says how the process is started in which the layers of a pull are unpacked; its Dir is set by Open. Without
	// a path they are unpacked in this one.
	Worker worker.Command
	Logger *slog.Logger
}

// Store is the node's images. Its methods may be called concurrently.
type Store struct {
	cfg      Config
	disk     *store.Store
	platform platforms.MatchComparer
	log      *slog.Logger
	pulls    join.Group[pullKey, *Image]
	fetches  chan struct{}

	mu      sync.Mutex
	running map[*progress]struct{}

	mounts  sync.Mutex        // held through a Mount and an Unmount
	mounted map[string]string // image id by mount point
}

// Image is one image as it is now; changing it changes nothing else.
type Image struct {
	ID       string      // digest of the config, "sha256:…": PullImageResponse.image_ref and ContainerStatus.image_id
	Tags     []string    // full names with tag
	Digests  []string    // name@digest of the manifest or index that was asked for
	Manifest string      // digest of the manifest that the layers came from
	Size     uint64      // bytes of the unpacked layers, shared ones included
	Config   ispec.Image // what the builder configured
	Passwd   []byte      // the image's /etc/passwd, at most store.MaxAccounts bytes
	Group    []byte      // and /etc/group
	Pinned   bool        // not to be garbage-collected
}

// Rootfs is what a container's root file system is made of.
type Rootfs struct {
	// Lower are directories for overlayfs, the top first, absolute; of an image without files an empty one. The first
	// one's own mode and owner are those of the image's root directory: an upper directory must be given the same.
	Lower []string
}

// Open opens or makes the store. It fails if another process has it open.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Registry.Logger == nil {
		cfg.Registry.Logger = cfg.Logger
	}
	if cfg.Platform.OS == "" && cfg.Platform.Architecture == "" {
		cfg.Platform = platforms.DefaultSpec()
	}
	cfg.Platform = platforms.Normalize(cfg.Platform)
	if cfg.Fetches <= 0 {
		cfg.Fetches = max(4, 2*runtime.NumCPU())
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	disk, err := store.Open(cfg.Root, cfg.Logger)
	if err != nil {
		return nil, err
	}
	cfg.Worker.Dir = disk.Making()
	return &Store{
		cfg: cfg, disk: disk, log: cfg.Logger,
		platform: matcher(cfg.Platform),
		fetches:  make(chan struct{}, cfg.Fetches),
		running:  make(map[*progress]struct{}),
		mounted:  make(map[string]string),
	}, nil
}

// matcher takes what the platform can run, the best first, as containerd's CRI does.
func matcher(p ispec.Platform) platforms.MatchComparer { return platforms.Only(p) }

// Close waits for removals in the background. No call may be in progress.
func (s *Store) Close() error { return s.disk.Close() }

// Wait blocks until what was removed so far is off the disk.
func (s *Store) Wait() { s.disk.Wait() }

func (s *Store) image(r *store.Record) *Image {
	img := &Image{
		ID:       r.ID.String(),
		Tags:     r.TagNames(),
		Manifest: digest.FromBytes(r.Manifest).String(),
		Digests:  append([]string(nil), r.Digests...),
		Size:     uint64(max(0, s.disk.Size(r))),
		Passwd:   r.Passwd,
		Group:    r.Group,
		Pinned:   r.Pinned,
	}
	// It was parsed before it was committed, and its digest was checked when the record was read.
	if err := json.Unmarshal(r.Config, &img.Config); err != nil {
		s.log.Error("parse image config", "image", r.ID, "err", err)
	}
	return img
}

// FsInfo is the image file system, for CRI's ImageFsInfo.
type FsInfo struct {
	Mountpoint string // a directory on it
	UsedBytes  uint64
	InodesUsed uint64
}

// FsInfo tells what images take. It reads no disk.
func (s *Store) FsInfo() FsInfo {
	u := s.disk.Usage()
	return FsInfo{Mountpoint: s.disk.Root(), UsedBytes: uint64(u.Bytes), InodesUsed: uint64(u.Inodes)}
}

// Lend gives the layers of an image (an id as in Image.ID) to a container and keeps them from being deleted. It may be
// repeated, and a container may have several images. Lends do not outlive the process: after a restart make them anew
// for every container, then call Settle.
func (s *Store) Lend(imageID, containerID string) (Rootfs, error) {
	return lent(imageID, containerID, func(id digest.Digest) ([]string, error) { return s.disk.Lend(id, containerID) })
}

// LendDir is Lend of one directory, a path in the image whose symlinks are followed there. fs.ErrNotExist: there is
// none; ErrNotDirectory: it is a file.
func (s *Store) LendDir(imageID, containerID, dir string) (Rootfs, error) {
	return lent(imageID, containerID, func(id digest.Digest) ([]string, error) { return s.disk.LendDir(id, containerID, dir) })
}

func lent(imageID, containerID string, f func(digest.Digest) ([]string, error)) (Rootfs, error) {
	id, err := digest.Parse(imageID)
	if err != nil {
		return Rootfs{}, fmt.Errorf("lend image %q: %w: not an id", imageID, ErrNotFound)
	}
	dirs, err := f(id)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("lend image %s to container %s: %w", imageID, containerID, ErrNotFound)
	}
	return Rootfs{Lower: dirs}, err
}

// Return ends a container's use of an image. Of one that it does not have it is success.
func (s *Store) Return(imageID, containerID string) error {
	id, err := digest.Parse(imageID)
	if err != nil {
		return fmt.Errorf("return image %q: %w", imageID, err)
	}
	return s.disk.Return(id, containerID)
}

// Settle removes what was kept for containers and mounts that are gone. Call it once, after a restart's last Lend.
func (s *Store) Settle() error {
	s.mounts.Lock()
	defer s.mounts.Unlock()
	if err := s.settleMounts(); err != nil {
		return err
	}
	return s.disk.Settle()
}

// Name is a reference as Pulls has it: normalised, or ErrInvalidReference.
func Name(ref string) (string, error) {
	named, err := registry.Parse(ref)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}
