package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

const recordVersion = 1

// Record is one image on disk. The image's identity is the digest of Config.
type Record struct {
	Version int           `json:"version"`
	ID      digest.Digest `json:"id"`
	// Tags are full names with a tag. If two records have the same one, as after a crash between moving it, the higher
	// generation has it.
	Tags     []Tag    `json:"tags,omitempty"`
	Digests  []string `json:"digests,omitempty"` // name@digest
	Manifest []byte   `json:"manifest"`          // as it came
	Config   []byte   `json:"config"`            // as it came
	// Layers are diff ids, the lowest first. Fixup is the key of the layer on top of them all, if they need one.
	Layers []digest.Digest `json:"layers,omitempty"`
	Fixup  digest.Digest   `json:"fixup,omitempty"`
	Passwd []byte          `json:"passwd,omitempty"` // merged /etc/passwd, at most MaxAccounts bytes
	Group  []byte          `json:"group,omitempty"`
	Pinned bool            `json:"pinned,omitempty"`
	// Removed images are kept for the containers that still use their layers; nobody else sees them.
	Removed bool `json:"removed,omitempty"`
}

// Tag is a name and when it came here.
type Tag struct {
	Name       string `json:"name"`
	Generation uint64 `json:"generation"`
}

// TagNames lists the tags.
func (r *Record) TagNames() []string {
	names := make([]string, len(r.Tags))
	for i, t := range r.Tags {
		names[i] = t.Name
	}
	return names
}

// clone copies what update may change.
func (r *Record) clone() *Record {
	c := *r
	c.Tags = slices.Clone(r.Tags)
	c.Digests = slices.Clone(r.Digests)
	return &c
}

func (r *Record) dropTag(name string) bool {
	n := len(r.Tags)
	r.Tags = slices.DeleteFunc(r.Tags, func(t Tag) bool { return t.Name == name })
	return len(r.Tags) < n
}

// chain lists the keys of all layers, the lowest first.
func (r *Record) chain() []digest.Digest {
	if r.Fixup == "" {
		return r.Layers
	}
	return append(slices.Clip(r.Layers), r.Fixup)
}

// readRecord reads a record and checks what a torn or foreign file would not have.
func readRecord(path string) (*Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("read %s: record version %d, this build reads %d", path, r.Version, recordVersion)
	}
	if err := r.ID.Validate(); err != nil {
		return nil, fmt.Errorf("read %s: id: %w", path, err)
	}
	if got := r.ID.Algorithm().FromBytes(r.Config); got != r.ID {
		return nil, fmt.Errorf("read %s: the config has digest %s", path, got)
	}
	if recordName(r.ID) != filepath.Base(path) {
		return nil, fmt.Errorf("read %s: the record is of %s", path, r.ID)
	}
	return &r, nil
}

func recordName(id digest.Digest) string { return id.Encoded() + ".json" }
