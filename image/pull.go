package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/distribution/reference"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/image/registry"
	"github.com/cri-mini/cri-mini/image/store"
	"github.com/cri-mini/cri-mini/image/unpack"
)

// PullRequest names an image as a user does, and may carry credentials.
type PullRequest struct {
	Ref  string
	Auth *criapi.AuthConfig
}

// pullKey is equal for requests that must have the same answer.
type pullKey struct {
	ref  string
	auth [sha256.Size]byte
}

// Pull resolves the reference at its registry, fetches what is missing and returns the image. A second Pull of the same
// reference with the same credentials joins one that is running. A pull that is given up or cut off keeps the layers
// that it has finished, for the next try.
func (s *Store) Pull(ctx context.Context, req PullRequest) (*Image, error) {
	named, err := registry.Parse(req.Ref)
	if err != nil {
		return nil, err
	}
	key, err := newPullKey(named, req.Auth)
	if err != nil {
		return nil, err
	}
	img, _, err := s.pulls.Do(ctx, key, func(ctx context.Context) (*Image, error) { return s.pull(ctx, named, req.Auth) })
	if errors.Is(err, registry.ErrTooLong) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", named, err)
	}
	return img, nil
}

func newPullKey(named reference.Named, auth *criapi.AuthConfig) (pullKey, error) {
	secret, err := proto.MarshalOptions{Deterministic: true}.Marshal(auth)
	if err != nil {
		return pullKey{}, err
	}
	return pullKey{ref: named.String(), auth: sha256.Sum256(secret)}, nil
}

func (s *Store) pull(ctx context.Context, named reference.Named, auth *criapi.AuthConfig) (*Image, error) {
	p, end := s.track(named.String(), false)
	defer end()
	repo, err := registry.Open(s.cfg.Registry, named, auth)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	desc, err := repo.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkManifestType(desc); err != nil {
		return nil, err
	}
	names := store.NewImage{Digest: reference.TrimNamed(named).String() + "@" + desc.Digest.String()}
	if tagged, ok := named.(reference.NamedTagged); ok {
		names.Tag = tagged.String()
	}
	t, err := s.choose(ctx, repo, desc)
	if err != nil {
		return nil, err
	}
	img, err := s.install(ctx, repo, t, names, p)
	if err != nil {
		return nil, err
	}
	s.log.Info("pulled image", append(p.attrs(), "ref", named.String(), "image", img.ID)...)
	return img, nil
}

// install brings the layers in and commits.
func (s *Store) install(ctx context.Context, src fetcher, t *target, names store.NewImage, p *progress) (_ *Image, err error) {
	p.begin(t)
	session, unpacker := s.disk.Begin(), &unpacker{command: s.cfg.Worker}
	defer func() {
		discard := err != nil && !worthRetry(ctx, err)
		err = errors.Join(err, unpacker.leave(), session.Close(discard))
	}()
	g, all := errgroup.WithContext(ctx)
	for i := range t.manifest.Layers {
		g.Go(func() error { return s.layer(all, session, layerSource{src, p, unpacker, i}, t) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	names.ID = t.manifest.Config.Digest
	names.Manifest, names.Config, names.Layers = t.manifestJSON, t.configJSON, t.config.RootFS.DiffIDs
	defer p.committing()()
	r, err := session.Commit(context.WithoutCancel(ctx), names)
	if err != nil {
		return nil, err
	}
	return s.image(r), nil
}

// worthRetry tells failures that another try may be spared work after: the caller left, or the registry did. After
// anything else the image is not likely to come, and its layers would only take space.
func worthRetry(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable)
}

// layerSource is where one layer of an image comes from.
type layerSource struct {
	fetcher
	pull   *progress
	unpack *unpacker
	i      int // which layer
}

func (s *Store) layer(ctx context.Context, session *store.Session, src layerSource, t *target) error {
	diffID, desc, note := t.config.RootFS.DiffIDs[src.i], t.manifest.Layers[src.i], src.pull.layers[src.i]
	err := session.Layer(ctx, diffID, func(ctx context.Context, dir string) (unpack.Info, error) {
		select {
		case s.fetches <- struct{}{}:
			defer func() { <-s.fetches }()
		case <-ctx.Done():
			return unpack.Info{}, context.Cause(ctx)
		}
		note.at(StageFetch)
		rc, err := src.Fetch(ctx, desc)
		if err != nil {
			return unpack.Info{}, err
		}
		blob := unpack.Blob{
			Content: counted{rc, &note.fetched}, Digest: desc.Digest, Size: desc.Size, DiffID: diffID,
			Keep: filepath.Dir(dir), Clock: &src.pull.clock,
		}
		if desc.Size < 0 { // from an archive that has no digests of compressed layers
			blob.Digest = ""
		}
		return src.unpack.apply(ctx, dir, blob, s.cfg.Limits)
	})
	if err == nil {
		note.at(StageDone)
	}
	return err
}
