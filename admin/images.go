package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/cri-mini/cri-mini/image"
)

func (s *Server) pull(r *http.Request, st *stream) error {
	var req PullRequest
	dec := json.NewDecoder(io.LimitReader(r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return invalid("%v", err)
	}
	name, err := image.Name(req.Ref)
	if err != nil {
		return err
	}
	ofName := func(p image.PullStatus) bool { return p.Ref == name }
	return s.follow(r.Context(), st, ofName, func() ([]*image.Image, error) {
		i, err := s.Images.Pull(r.Context(), image.PullRequest{Ref: req.Ref, Auth: req.Auth})
		return []*image.Image{i}, err
	})
}

// load reads the archive of ?path=, a file or a layout's directory on the daemon's machine, or the request's body.
func (s *Server) load(r *http.Request, st *stream) error {
	path := r.URL.Query().Get("path")
	if path != "" && !filepath.IsAbs(path) {
		return invalid("path %q is not absolute", path)
	}
	opts := image.LoadOptions{Name: r.URL.Query().Get("name")}
	began := time.Now()
	// A load is known by its time alone until its names are read. One more pull in the display does no harm.
	since := func(p image.PullStatus) bool { return p.Load && !p.Started.Before(began) }
	return s.follow(r.Context(), st, since, func() ([]*image.Image, error) {
		if path == "" {
			return s.Images.Load(r.Context(), r.Body, opts)
		}
		return s.Images.LoadPath(r.Context(), path, opts)
	})
}

// verify checks the images named, or all.
func (s *Server) verify(r *http.Request, st *stream) error {
	refs := r.URL.Query()["ref"]
	if len(refs) == 0 {
		for _, i := range s.Images.List() {
			refs = append(refs, i.ID)
		}
	}
	var first error
	for _, ref := range refs {
		err := s.Images.Verify(r.Context(), ref, func(v image.Verified) { st.send(Event{Layer: &v}) })
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return first
	}
	st.send(Event{Done: true})
	return nil
}
