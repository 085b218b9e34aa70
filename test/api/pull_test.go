package api

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/test/daemon"
)

func (n *node) pull(ref string) (string, error) {
	r, err := n.Images.PullImage(n.ctx(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
	return r.GetImageRef(), err
}

// stored lists what the image store has: records, layers, half-made things.
func (n *node) stored() []string {
	var s []string
	for _, dir := range []string{"i", "l", "tmp", "bad"} {
		entries, _ := os.ReadDir(filepath.Join(n.State, "images", dir))
		for _, e := range entries {
			s = append(s, dir+"/"+e.Name())
		}
	}
	return s
}

// storeUnchanged wants the image store to become what it was.
func (n *node) storeUnchanged(f func()) {
	n.t.Helper()
	before := n.stored()
	f()
	until(n.t, "the image store is not what it was", func() bool { return len(daemon.Difference(before, n.stored())) == 0 })
}

func (n *node) removeImage(ref string) {
	n.t.Helper()
	if _, err := n.Images.RemoveImage(n.ctx(), &criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: ref}}); err != nil {
		n.t.Errorf("RemoveImage: %v", err)
	}
}

func TestPullOfWhatIsBad(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	other := "riscv64"
	reg.push("alien", smallImage("alien", other))
	reg.pushIndex(t, "alien-list", other, smallImage("alien", other))
	truncated := reg.push("truncated", smallImage("truncated", ""))
	reg.blobs[truncated.String()] = reg.blobs[truncated.String()][:3000]
	mismatch := reg.push("mismatch", smallImage("mismatch", ""))
	reg.blobs[mismatch.String()][600] ^= 1
	notTar := reg.push("no-tar", daemon.NewImage([]byte(strings.Repeat("this is no tar ", 100)), ""))
	climbs := reg.push("climbs", daemon.NewImage(daemon.Layer([]daemon.File{{Name: "../../../../escaped", Content: "x"}}), ""))
	reg.manifest("no-json", "application/vnd.oci.image.manifest.v1+json", []byte("this is no JSON"))
	reg.manifest("no-manifest", "text/html", []byte("<html>a login page</html>"))
	for _, c := range []struct {
		name, ref string
		code      codes.Code
		says      []string
	}{
		{"for another architecture", reg.ref("alien"), codes.FailedPrecondition, []string{reg.ref("alien"), "riscv64"}},
		{"a list without this architecture", reg.ref("alien-list"), codes.FailedPrecondition, []string{reg.ref("alien-list"), "riscv64"}},
		{"truncated layer", reg.ref("truncated"), codes.DataLoss, []string{truncated.String(), "truncated"}},
		{"digest mismatch", reg.ref("mismatch"), codes.DataLoss, []string{mismatch.String()}},
		{"a layer that is no tar", reg.ref("no-tar"), codes.DataLoss, []string{notTar.String()}},
		{"a layer that climbs", reg.ref("climbs"), codes.DataLoss, []string{climbs.String(), "../"}},
		{"a manifest that is no JSON", reg.ref("no-json"), codes.DataLoss, []string{reg.ref("no-json")}},
		{"a manifest that is a web page", reg.ref("no-manifest"), codes.FailedPrecondition, []string{reg.ref("no-manifest"), "text/html"}},
		{"unknown tag", reg.ref("nobody"), codes.NotFound, []string{reg.ref("nobody")}},
		{"no name", "", codes.InvalidArgument, nil},
		{"a name that is none", "localhost/UPPER:1", codes.InvalidArgument, []string{"localhost/UPPER:1"}},
		{"a name that climbs", "../../etc/passwd", codes.InvalidArgument, []string{"../../etc/passwd"}},
		{"nobody listens", "127.0.0.1:9/x:1", codes.Unknown, []string{"RegistryUnavailable: pull 127.0.0.1:9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &node{n.Daemon, t}
			n.storeUnchanged(func() {
				_, err := n.pull(c.ref)
				mustFail(t, err, c.code, c.says...)
			})
		})
	}
	if _, err := os.Lstat(filepath.Join(n.State, "escaped")); err == nil {
		t.Error("a layer wrote outside of itself")
	}
}

// TestPullFromARegistryThatHangs: the configured silence ends it, wherever it is.
func TestPullFromARegistryThatHangs(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	image := smallImage("slow", "")
	layer := reg.push("slow", image)
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"at once": func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"in the middle of a layer": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, layer.String()) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(image.Layer)))
			_, _ = w.Write(image.Layer[:2000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t)
			reg.push("slow", image)
			reg.setFault(fault)
			n := &node{n.Daemon, t}
			began := time.Now()
			_, err := n.pull(reg.ref("slow"))
			// In the middle of a layer a second connection is tried.
			if took := time.Since(began); took < stallTimeout || took > 2*stallTimeout+5*time.Second {
				t.Errorf("took %s, want %s or twice that", took, stallTimeout)
			}
			mustFail(t, err, codes.Unknown, "RegistryUnavailable: pull "+reg.ref("slow"), "host "+reg.host()+" sent nothing for 2s")
		})
	}
	t.Run("and a caller who goes away", func(t *testing.T) {
		t.Parallel()
		reg := newRegistry(t)
		gone := make(chan struct{})
		reg.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			close(gone)
			return true
		})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := n.Images.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: reg.ref("slow")}})
		mustFail(t, err, codes.DeadlineExceeded)
		select {
		case <-gone:
		case <-time.After(stallTimeout / 2):
			t.Error("the pull goes on for nobody")
		}
	})
}

func TestPull(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	image := smallImage("joined", "")
	layer := reg.push("1", image)
	reg.push("2", image)
	reg.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, layer.String()) {
			time.Sleep(200 * time.Millisecond)
		}
		return false
	})
	ids := map[string]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			id, err := n.pull(reg.ref("1"))
			mu.Lock()
			defer mu.Unlock()
			if ids[id] = true; err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(ids) != 1 {
		t.Errorf("five pulls of one image gave the ids %v", ids)
	}
	if got := reg.count("GET " + layer.String()); got != 1 {
		t.Errorf("the layer was fetched %d times, want once", got)
	}
	id, err := n.pull(reg.ref("2"))
	if err != nil || !ids[id] {
		t.Errorf("the second tag of the image gave %q, %v", id, err)
	}
	if got := reg.count("GET " + layer.String()); got != 1 {
		t.Errorf("the layer was fetched %d times, want once", got)
	}

	st := n.imageStatus(reg.ref("1"))
	if st.GetId() != id || len(st.GetRepoTags()) != 2 || len(st.GetRepoDigests()) != 1 || st.GetSize() == 0 {
		t.Errorf("ImageStatus: %v", st)
	}
	for _, name := range []string{id, strings.TrimPrefix(id, "sha256:"), st.GetRepoDigests()[0], reg.ref("2")} {
		if got := n.imageStatus(name); got.GetId() != id {
			t.Errorf("ImageStatus of %s: %v", name, got)
		}
	}
	list, err := n.Images.ListImages(n.ctx(), &criapi.ListImagesRequest{Filter: &criapi.ImageFilter{Image: &criapi.ImageSpec{Image: reg.ref("2")}}})
	if err != nil || len(list.Images) != 1 || list.Images[0].Id != id {
		t.Errorf("ListImages: %v, %v", list, err)
	}
	n.removeImage(id)
	if got := n.imageStatus(reg.ref("1")); got != nil {
		t.Errorf("after the removal by id there is still %v", got)
	}
	n.removeImage(id)
	if got := n.imageStatus(reg.ref("2")); got != nil {
		t.Errorf("after the removal by id there is still %v", got)
	}
}

func (n *node) imageStatus(ref string) *criapi.Image {
	n.t.Helper()
	r, err := n.Images.ImageStatus(n.ctx(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: ref}})
	if err != nil {
		n.t.Fatalf("ImageStatus of %s: %v", ref, err)
	}
	return r.Image
}

// TestTrapImageIDsAreOne: kubelet's image garbage collection compares the three.
func TestTrapImageIDsAreOne(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	files, err := daemon.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	reg.push("busybox", daemon.NewImage(daemon.Layer(files), ""))
	id, err := n.pull(reg.ref("busybox"))
	if err != nil {
		t.Fatal(err)
	}
	p := n.runPod("ids")
	c := p.run("main", "", idle, func(c *criapi.ContainerConfig) { c.Image = &criapi.ImageSpec{Image: id} })
	image, st := n.imageStatus(reg.ref("busybox")), c.status()
	if image.GetId() != id || st.ImageId != id {
		t.Errorf("PullImageResponse.image_ref %s, Image.id %s, ContainerStatus.image_id %s", id, image.GetId(), st.ImageId)
	}
	if len(image.GetRepoDigests()) != 1 || st.ImageRef != image.GetRepoDigests()[0] {
		t.Errorf("ContainerStatus.image_ref %s, Image.repo_digests %v", st.ImageRef, image.GetRepoDigests())
	}
	// An image that is removed under a running container lives on in it.
	n.removeImage(id)
	if got := c.exec("cat /etc/passwd"); !strings.Contains(got, "nobody") {
		t.Errorf("after the image's removal the container reads %q", got)
	}
	if _, err := p.tryCreate(containerConfig("late", "true", func(c *criapi.ContainerConfig) { c.Image = &criapi.ImageSpec{Image: id} })); status.Code(err) != codes.NotFound {
		t.Errorf("a container of the removed image: %v", err)
	}
}

func TestImageServiceOfNothing(t *testing.T) {
	n := start(t)
	for _, ref := range []string{"localhost/nobody:1", "sha256:" + strings.Repeat("0", 64), "../../etc/passwd", "not a name"} {
		if got := n.imageStatus(ref); got != nil {
			t.Errorf("ImageStatus of %q: %v", ref, got)
		}
		n.removeImage(ref)
	}
	_, err := n.Images.ImageStatus(n.ctx(), &criapi.ImageStatusRequest{})
	mustFail(t, err, codes.InvalidArgument, "image")
	_, err = n.Images.RemoveImage(n.ctx(), &criapi.RemoveImageRequest{})
	mustFail(t, err, codes.InvalidArgument, "image")
	fs, err := n.Images.ImageFsInfo(n.ctx(), &criapi.ImageFsInfoRequest{})
	if err != nil || len(fs.ImageFilesystems) != 1 || fs.ImageFilesystems[0].UsedBytes.GetValue() == 0 || fs.ImageFilesystems[0].InodesUsed.GetValue() == 0 || len(fs.ContainerFilesystems) != 1 {
		t.Errorf("ImageFsInfo: %v, %v", fs, err)
	}
}
