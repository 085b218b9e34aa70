package image

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestPullsShowTheirProgress(t *testing.T) {
	reg := newRegistry(t)
	cfg := testConfig(t.TempDir())
	cfg.Registry.StallTimeout = time.Hour // it is not the silence that is tested
	s := openStore(t, cfg)
	m, _ := reg.image(t, "x:1", spec{layers: [][]byte{layerTar(t, "f a 1"), layerTar(t, "f b "+noise(200_000))}, compress: []string{"none", "none"}})
	layers := reg.layers(t, m)
	data, release := reg.blobs[layers[1]], make(chan struct{})
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, layers[1].String()) {
			w.Write(data[:100_000])
			w.(http.Flusher).Flush()
			<-release
			w.Write(data[100_000:])
			return true
		}
		return false
	})
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), PullRequest{Ref: reg.host() + "/x:1"})
		done <- err
	}()
	var now []PullStatus
	for range 6000 { // a minute
		now = s.Pulls()
		if len(now) == 1 && len(now[0].Layers) == 2 && now[0].Layers[0].Stage == StageDone && now[0].Layers[1].Fetched == 100_000 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(now) != 1 || now[0].Ref != reg.host()+"/x:1" || now[0].Stage != StageLayers || len(now[0].Layers) != 2 ||
		now[0].Layers[1] != (LayerStatus{Digest: layers[1], Stage: StageFetch, Size: int64(len(data)), Fetched: 100_000}) || now[0].Took.Resolve == 0 {
		t.Errorf("in the middle: %+v", now)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if now := s.Pulls(); len(now) != 0 {
		t.Errorf("after the end: %+v", now)
	}
}
