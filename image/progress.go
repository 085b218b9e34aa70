package image

import (
	"cmp"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/cri-mini/cri-mini/image/unpack"
)

// Stages of a pull and of a layer in it.
const (
	StageResolve = "resolve" // asking the registry what the name means
	StageLayers  = "layers"  // layers come in
	StageCommit  = "commit"  // the layers are written back and the record is made
	StageWait    = "wait"    // for a free slot, or for another pull that fetches the same layer
	StageFetch   = "fetch"   // fetched and unpacked as it comes
	StageDone    = "done"
)

// PullStatus is a pull or load that is running, whoever asked for it.
type PullStatus struct {
	Ref     string        `json:"ref"`
	Load    bool          `json:"load,omitempty"` // from an archive
	Stage   string        `json:"stage"`
	Started time.Time     `json:"started"`
	Layers  []LayerStatus `json:"layers,omitempty"`
	Took    Took          `json:"took"`
}

// LayerStatus is one layer of it.
type LayerStatus struct {
	Digest  digest.Digest `json:"digest"` // of the blob
	Stage   string        `json:"stage"`
	Size    int64         `json:"size"`    // of the blob
	Fetched int64         `json:"fetched"` // bytes that this pull fetched; 0 of a layer that was there
}

// Took is the time in each stage so far, nanoseconds in JSON. Fetch, Decompress and Write are sums over layers that come
// in side by side: their own time, without the waiting for each other.
type Took struct {
	Resolve    time.Duration `json:"resolve"`
	Fetch      time.Duration `json:"fetch"`
	Decompress time.Duration `json:"decompress"`
	Write      time.Duration `json:"write"`
	Commit     time.Duration `json:"commit"`
}

// progress is a running pull or load.
type progress struct {
	ref     string
	load    bool
	started time.Time
	clock   unpack.Clock

	mu      sync.Mutex
	stage   string
	layers  []*layerProgress
	resolve time.Duration
	commit  time.Duration
}

type layerProgress struct {
	digest  digest.Digest
	size    int64
	fetched atomic.Int64
	stage   atomic.Pointer[string]
}

func (l *layerProgress) at(stage string) { l.stage.Store(&stage) }

// status is a copy as of now.
func (p *progress) status() PullStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PullStatus{Ref: p.ref, Load: p.load, Stage: p.stage, Started: p.started, Took: Took{
		Resolve: p.resolve, Commit: p.commit,
		Fetch:      time.Duration(p.clock.Fetch.Load()),
		Decompress: time.Duration(p.clock.Decompress.Load()),
		Write:      time.Duration(p.clock.Write.Load()),
	}}
	for _, l := range p.layers {
		st.Layers = append(st.Layers, LayerStatus{Digest: l.digest, Stage: *l.stage.Load(), Size: l.size, Fetched: l.fetched.Load()})
	}
	return st
}

// begin notes the layers and how long it took to get to know them.
func (p *progress) begin(t *target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage, p.resolve = StageLayers, time.Since(p.started)
	for _, d := range t.manifest.Layers {
		l := &layerProgress{digest: d.Digest, size: d.Size}
		l.at(StageWait)
		p.layers = append(p.layers, l)
	}
}

// committing notes that the layers are there; the function it returns, that the record is, too.
func (p *progress) committing() (done func()) {
	began := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage = StageCommit
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.commit = time.Since(began)
	}
}

// attrs are for the one line that a pull is logged with.
func (p *progress) attrs() []any {
	t := p.status().Took
	return []any{
		slog.Duration("took", time.Since(p.started)), slog.Duration("resolve", t.Resolve), slog.Duration("fetch", t.Fetch),
		slog.Duration("decompress", t.Decompress), slog.Duration("write", t.Write), slog.Duration("commit", t.Commit),
	}
}

// counted counts what is read into a layer's progress.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Pulls lists the pulls that run, the oldest first.
func (s *Store) Pulls() []PullStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []PullStatus
	for p := range s.running {
		list = append(list, p.status())
	}
	slices.SortFunc(list, func(a, b PullStatus) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Ref, b.Ref))
	})
	return list
}

// track keeps the progress of a pull, or a load, for Pulls until end is called.
func (s *Store) track(ref string, load bool) (p *progress, end func()) {
	p = &progress{ref: ref, load: load, started: time.Now(), stage: StageResolve}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[p] = struct{}{}
	return p, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, p)
	}
}
