package registry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/distribution/reference"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DefaultStallTimeout is how long a host may be silent when Config says nothing.
const DefaultStallTimeout = 30 * time.Second

// Config is what an operator sets. The zero value works.
type Config struct {
	// ConfigDir holds <host>/hosts.toml files as containerd reads them; empty means none.
	ConfigDir string
	// StallTimeout bounds the silence of a host per request; zero means DefaultStallTimeout.
	StallTimeout time.Duration
	// UserAgent is sent with each request.
	UserAgent string
	// Logger gets the protocol library's own messages, all of them at debug level; nil means slog.Default.
	Logger *slog.Logger
}

// Repository is one image name at its registry, with the credentials of one pull. It is safe for concurrent use.
type Repository struct {
	ref      reference.Named
	resolver remotes.Resolver
	log      *slog.Logger

	mu      sync.Mutex
	fetcher remotes.Fetcher
	hosts   map[string][]docker.RegistryHost
}

// Open prepares access to ref; it does not touch the network. auth may be nil.
func Open(cfg Config, ref reference.Named, auth *criapi.AuthConfig) (*Repository, error) {
	l, err := newLogin(auth)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", ref.Name(), err)
	}
	r := &Repository{ref: ref, log: cfg.Logger, hosts: make(map[string][]docker.RegistryHost)}
	if r.log == nil {
		r.log = slog.Default()
	}
	headers := http.Header{}
	if cfg.UserAgent != "" {
		headers.Set("User-Agent", cfg.UserAgent)
	}
	r.resolver = docker.NewResolver(docker.ResolverOptions{
		Hosts:   r.cachedHosts(strictHosts(r.log, r.hostOptions(cfg, l))),
		Headers: headers,
	})
	return r, nil
}

func (r *Repository) hostOptions(cfg Config, l login) config.HostOptions {
	limit := cfg.StallTimeout
	if limit <= 0 {
		limit = DefaultStallTimeout
	}
	opts := config.HostOptions{
		Credentials: l.credentials,
		UpdateClient: func(c *http.Client) error {
			if _, done := c.Transport.(*transport); done {
				return nil // a host with only extra headers shares the first client
			}
			if t, ok := c.Transport.(*http.Transport); ok {
				t.ResponseHeaderTimeout = 0 // ours bounds it, and the library would retry this one
			}
			c.Transport = &transport{next: c.Transport, limit: limit, login: l, hosts: r.mayHaveToken(l)}
			return nil
		},
	}
	if cfg.ConfigDir != "" {
		opts.HostDir = config.HostDirFromRoot(cfg.ConfigDir)
	}
	return opts
}

// mayHaveToken allows the configured hosts of this repository only.
func (r *Repository) mayHaveToken(l login) func(string) bool {
	return func(host string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, hosts := range r.hosts {
			if slices.ContainsFunc(hosts, func(h docker.RegistryHost) bool { return h.Host == host }) {
				return l.allows(host)
			}
		}
		return false
	}
}

// cachedHosts keeps the clients of one pull: the library asks anew for each resolve and fetch, and each answer would
// have its own connections and fetch its own token.
func (r *Repository) cachedHosts(next docker.RegistryHosts) docker.RegistryHosts {
	return func(host string) ([]docker.RegistryHost, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if h, ok := r.hosts[host]; ok {
			return h, nil
		}
		h, err := next(host)
		if err != nil {
			return nil, err
		}
		r.hosts[host] = h
		return h, nil
	}
}

// Resolve asks which manifest or index the reference means now. The descriptor's digest is what a tag pointed to, or
// the digest asked for; its content is not read yet.
func (r *Repository) Resolve(ctx context.Context) (ispec.Descriptor, error) {
	_, desc, err := r.resolver.Resolve(withLogger(ctx, r.log), r.ref.String())
	if err != nil {
		return ispec.Descriptor{}, fmt.Errorf("resolve %s at %s: %w", r.ref, reference.Domain(r.ref), classify(ctx, err))
	}
	return desc, nil
}

// Fetch opens a blob or manifest. The reader does not verify the digest; its errors carry this package's sentinels.
// A connection that breaks or falls silent in the middle is taken up again with a range request. A blob that is shorter
// than desc says ends in io.EOF or io.ErrUnexpectedEOF itself.
func (r *Repository) Fetch(ctx context.Context, desc ispec.Descriptor) (io.ReadCloser, error) {
	// Foreign layer URLs would let a manifest make the node call any address: the registry alone is asked.
	desc.URLs = nil
	b := &blob{repo: r, desc: desc}
	b.ctx, b.cancel = context.WithCancel(ctx)
	if err := b.open(); err != nil {
		b.cancel()
		return nil, r.fetchError(ctx, desc, err)
	}
	return b, nil
}

func (r *Repository) openFetcher(ctx context.Context) (remotes.Fetcher, error) {
	r.mu.Lock()
	f := r.fetcher
	r.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := r.resolver.Fetcher(withLogger(ctx, r.log), r.ref.String())
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetcher = f
	return f, nil
}

func (r *Repository) fetchError(ctx context.Context, desc ispec.Descriptor, err error) error {
	return fmt.Errorf("fetch blob %s of %s at %s: %w", desc.Digest, r.ref, reference.Domain(r.ref), classify(ctx, err))
}

// Close lets go of the connections.
func (r *Repository) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, hosts := range r.hosts {
		for _, h := range hosts {
			h.Client.CloseIdleConnections()
		}
	}
}
