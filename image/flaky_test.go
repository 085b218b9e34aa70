package image

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// noise is content that does not compress, the same in every run.
func noise(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(digest.FromString(fmt.Sprint(i)).Encoded())
	}
	return b.String()[:n]
}

// cut answers a blob request with what is asked for, but ends after the first half of it by end.
func cut(data []byte, w http.ResponseWriter, r *http.Request, end func()) (sent int) {
	from := 0
	if h := r.Header.Get("Range"); h != "" {
		_, _ = fmt.Sscanf(h, "bytes=%d-", &from)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	half := data[from : from+(len(data)-from+1)/2]
	n, _ := w.Write(half)
	w.(http.Flusher).Flush()
	end()
	return n
}

// reset ends a connection with a RST in place of a FIN: SO_LINGER of 0, socket(7).
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// TestTransferIsTakenUpWhereItBroke counts the bytes at the registry: none is sent twice.
func TestTransferIsTakenUpWhereItBroke(t *testing.T) {
	for name, end := range map[string]func(w http.ResponseWriter, r *http.Request){
		"closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(20 * time.Millisecond) // a RST takes along what the receiver has not read
			reset(w)
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			reg := newRegistry(t)
			cfg := testConfig(t.TempDir())
			cfg.Registry.StallTimeout = 300 * time.Millisecond
			s := openStore(t, cfg)
			m, _ := reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a "+noise(400_000))}, compress: []string{"none"}})
			layer := reg.layers(t, m)[0]
			data, breaks, ranges := reg.blobs[layer], 0, []string(nil)
			reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, layer.String()) {
					return false
				}
				ranges = append(ranges, r.Header.Get("Range"))
				if breaks++; breaks > 1 {
					return false
				}
				cut(data, w, r, func() { end(w, r) })
				return true
			})
			if _, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"}); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("bytes=%d-", (len(data)+1)/2); len(ranges) != 2 || ranges[0] != "" || ranges[1] != want {
				t.Errorf("ranges asked for: %q, want the whole and then %q", ranges, want)
			}
		})
	}
}

// TestBreaksWithoutEnd: a registry that never gets on is given up, as unavailable and not as corrupt.
func TestBreaksWithoutEnd(t *testing.T) {
	reg := newRegistry(t)
	s := openStore(t, testConfig(t.TempDir()))
	m, _ := reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a "+noise(10_000))}})
	layer, tries := reg.layers(t, m)[0], 0
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.String()) {
			return false
		}
		tries++
		w.Header().Set("Content-Length", fmt.Sprint(len(reg.blobs[layer])))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), layer.String()) {
		t.Errorf("error = %v", err)
	}
	if tries != 4 {
		t.Errorf("%d tries, want 4", tries)
	}
}

// TestBusyRegistry: Retry-After is waited for, on every kind of request.
func TestBusyRegistry(t *testing.T) {
	tests := []struct {
		name, after string
		status      int
		refusals    int // of each path
		takes       time.Duration
		says        string // of the error; "" is success
	}{
		{"429 with seconds", "1", 429, 1, time.Second, ""},
		{"503 with seconds", "1", 503, 1, time.Second, ""},
		{"429 without", "", 429, 2, 1500 * time.Millisecond, ""},
		{"429 with a date gone by", "Mon, 02 Jan 2006 15:04:05 GMT", 429, 2, 0, ""},
		{"429 for too long", "3600", 429, 1, 0, "429 Too Many Requests, and asks for a pause of 1h0m0s"},
		{"429 without end", "Mon, 02 Jan 2006 15:04:05 GMT", 429, 1000, 0, "429 Too Many Requests 4 times"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			s := openStore(t, testConfig(t.TempDir()))
			reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a 1")}})
			refused, asked := map[string]int{}, 0
			reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				reg.mu.Lock()
				defer reg.mu.Unlock()
				if asked++; !strings.HasSuffix(r.URL.Path, "/manifests/1") || refused[r.Method+r.URL.Path] >= tt.refusals {
					return false
				}
				refused[r.Method+r.URL.Path]++
				if tt.after != "" {
					w.Header().Set("Retry-After", tt.after)
				}
				http.Error(w, "slow down", tt.status)
				return true
			})
			start := time.Now()
			_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
			if took := time.Since(start); took < tt.takes || took > tt.takes+5*time.Second {
				t.Errorf("took %s, want %s", took, tt.takes)
			}
			if tt.says == "" && err != nil {
				t.Error(err)
			}
			if tt.says != "" && (!errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "host "+reg.host()+" answered "+tt.says)) {
				t.Errorf("error = %v, want %q", err, tt.says)
			}
			if asked > 12 {
				t.Errorf("%d requests", asked)
			}
		})
	}
}
