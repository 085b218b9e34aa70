package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/cri-mini/cri-mini/image"
)

// Server answers requests. All fields must be set.
type Server struct {
	Images *image.Store
	Log    *slog.Logger
}

// maxRequest bounds a request's JSON, in bytes.
const maxRequest = 1 << 20

// Handler is the interface. Images are named by ?ref=, as a name may hold slashes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/images":         s.list,
		"GET /v1/image":          s.inspect,
		"DELETE /v1/image":       s.remove,
		"GET /v1/image/archive":  s.save,
		"GET /v1/pulls":          s.pulls,
		"POST /v1/image/mount":   s.mount,
		"DELETE /v1/image/mount": s.unmount,
	} {
		mux.HandleFunc(pattern, s.observe(f))
	}
	for pattern, f := range map[string]func(*http.Request, *stream) error{
		"POST /v1/image":         s.pull,
		"POST /v1/image/archive": s.load,
		"POST /v1/image/verify":  s.verify,
	} {
		mux.HandleFunc(pattern, s.observe(streamed(f)))
	}
	return mux
}

// observe logs each request and answers the failed ones.
func (s *Server) observe(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		err := f(w, r)
		level := slog.LevelDebug
		if err != nil {
			level = slog.LevelInfo
			e, status := toError(err)
			answer(w, status, e)
		}
		s.Log.Log(r.Context(), level, "admin "+r.Method+" "+r.URL.Path, "ref", r.URL.Query()["ref"], "took", time.Since(began), "err", err)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) error {
	images := []*Image{}
	for _, i := range s.Images.List() {
		images = append(images, shown(i))
	}
	answer(w, http.StatusOK, images)
	return nil
}

// get finds the one image that a request names.
func (s *Server) get(r *http.Request) (*image.Image, error) {
	ref, err := one(r, "ref")
	if err != nil {
		return nil, err
	}
	i, ok := s.Images.Get(ref)
	if !ok {
		return nil, &Error{Kind: "not found", Message: "image " + ref + ": not found"}
	}
	return i, nil
}

// one reads a parameter that must be there once.
func one(r *http.Request, name string) (string, error) {
	v := r.URL.Query()[name]
	if len(v) != 1 || v[0] == "" {
		return "", invalid("give one %s", name)
	}
	return v[0], nil
}

func (s *Server) inspect(w http.ResponseWriter, r *http.Request) error {
	i, err := s.get(r)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, shown(i))
	return nil
}

// remove differs from the CRI's RemoveImage: a person who mistypes a name is told so.
func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	i, err := s.get(r)
	if err != nil {
		return err
	}
	if err := s.Images.Remove(r.Context(), i.ID); err != nil {
		return err
	}
	answer(w, http.StatusOK, shown(i))
	return nil
}

func (s *Server) pulls(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, append([]image.PullStatus{}, s.Images.Pulls()...))
	return nil
}

func (s *Server) mount(w http.ResponseWriter, r *http.Request) error {
	i, err := s.get(r)
	if err != nil {
		return err
	}
	dir, err := directory(r)
	if err != nil {
		return err
	}
	if err := s.Images.Mount(i.ID, dir); err != nil {
		return err
	}
	answer(w, http.StatusOK, shown(i))
	return nil
}

func (s *Server) unmount(w http.ResponseWriter, r *http.Request) error {
	dir, err := directory(r)
	if err != nil {
		return err
	}
	if err := s.Images.Unmount(dir); err != nil {
		return err
	}
	answer(w, http.StatusOK, Event{Done: true})
	return nil
}

func directory(r *http.Request) (string, error) {
	dir, err := one(r, "dir")
	if err == nil && !filepath.IsAbs(dir) {
		err = invalid("dir %q is not absolute", dir)
	}
	return dir, err
}

// save streams an archive. An error after its first byte can only cut the connection: the client misses the trailer.
func (s *Server) save(w http.ResponseWriter, r *http.Request) error {
	refs := r.URL.Query()["ref"]
	if len(refs) == 0 {
		return invalid("give a ref")
	}
	for _, ref := range refs {
		if _, ok := s.Images.Get(ref); !ok {
			return &Error{Kind: "not found", Message: "image " + ref + ": not found"}
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Trailer", resultTrailer)
	if err := s.Images.Save(r.Context(), w, refs...); err != nil {
		text, _ := json.Marshal(errorOf(err))
		w.Header().Set(resultTrailer, string(text))
		return nil //nolint:nilerr // it is in the trailer: the status line is written
	}
	w.Header().Set(resultTrailer, "{}")
	return nil
}

// resultTrailer follows an archive: an Error, whose message is empty when all went well.
const resultTrailer = "Cri-Mini-Result"

func errorOf(err error) *Error {
	e, _ := toError(err)
	return e
}

// stream writes the lines of a long answer.
type stream struct {
	w http.ResponseWriter
}

func (s *stream) send(e Event) {
	_ = json.NewEncoder(s.w).Encode(e) // a client that is gone ends the request's context
	_ = http.NewResponseController(s.w).Flush()
}

func streamed(f func(*http.Request, *stream) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "application/x-ndjson")
		// The load's body is still being read when its first progress is written.
		_ = http.NewResponseController(w).EnableFullDuplex()
		st := &stream{w}
		if err := f(r, st); err != nil {
			st.send(Event{Error: errorOf(err)})
		}
		return nil
	}
}

// tick is how often a pull's progress is told.
const tick = 100 * time.Millisecond

// follow runs work and tells meanwhile what the pulls of want are at.
func (s *Server) follow(ctx context.Context, st *stream, want func(image.PullStatus) bool, work func() ([]*image.Image, error)) error {
	type result struct {
		images []*image.Image
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		images, err := work()
		ended <- result{images, err}
	}()
	for ticker := time.NewTicker(tick); ; {
		select {
		case res := <-ended:
			ticker.Stop()
			if res.err != nil {
				return res.err
			}
			e := Event{}
			for _, i := range res.images {
				e.Images = append(e.Images, shown(i))
			}
			st.send(e)
			return nil
		case <-ticker.C:
			for _, p := range s.Images.Pulls() {
				if ctx.Err() == nil && want(p) {
					st.send(Event{Progress: &p})
				}
			}
		}
	}
}
