package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// command runs `cri-mini image` beside the daemon and gives its standard output and error.
func (n *node) command(env []string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(n.ctx(), filepath.Join(n.Bin, "cri-mini"), append([]string{"image", args[0], "--config", filepath.Join(n.Dir, "config.toml")}, args[1:]...)...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// says runs one that must succeed.
func (n *node) says(args ...string) string {
	n.t.Helper()
	out, errs, err := n.command(nil, args...)
	if err != nil {
		n.t.Fatalf("cri-mini image %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

// refuses runs one that must fail with these words.
func (n *node) refuses(words string, args ...string) {
	n.t.Helper()
	out, errs, err := n.command(nil, args...)
	if err == nil || !strings.Contains(errs, words) {
		n.t.Errorf("cri-mini image %s: %v, said %q, want %q\n%s", strings.Join(args, " "), err, errs, words, out)
	}
}

func TestImageCommands(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	reg.push("one", smallImage("the content", ""))
	name := reg.ref("one")
	id := strings.Fields(n.says("pull", name))[0]
	t.Cleanup(func() { n.removeImage(id) })

	if list := n.says("list"); !strings.Contains(list, name) || !strings.Contains(list, strings.TrimPrefix(id, "sha256:")[:12]) {
		t.Errorf("list says:\n%s", list)
	}
	var infos []struct{ ID, Manifest string }
	if err := json.Unmarshal([]byte(n.says("inspect", name)), &infos); err != nil || len(infos) != 1 || infos[0].ID != id || infos[0].Manifest == "" {
		t.Errorf("inspect says %v, %v", infos, err)
	}
	if out := n.says("verify", name); !strings.Contains(out, "1 layers") {
		t.Errorf("verify says %q", out)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	n.says("save", "-o", archive, name)
	if out := n.says("rm", id); !strings.Contains(out, name) {
		t.Errorf("rm says %q", out)
	}
	n.refuses("not found", "inspect", name)
	n.refuses("not found", "rm", name)
	n.refuses("not found", "save", "-o", archive+".none", name)
	n.refuses("invalid image reference", "pull", "NO NAME")
	n.refuses("USER:PASSWORD", "pull", "--creds", "alone", name)
	if out := n.says("load", archive); !strings.HasPrefix(out, id) || !strings.Contains(out, name) {
		t.Errorf("load says %q, want %s %s", out, id, name)
	}
}

// images gives a daemon of the test's own: it will be killed and stopped.
func images(t *testing.T, name string) *node {
	t.Helper()
	n := another(t, name)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestImageMount(t *testing.T) {
	n := images(t, "api-mount")
	reg := newRegistry(t)
	reg.push("mounted", smallImage("seen", ""))
	name, dir := reg.ref("mounted"), t.TempDir()
	id := strings.Fields(n.says("pull", name))[0]
	file := filepath.Join(dir, "file")
	seen := func(want string) {
		t.Helper()
		if b, _ := os.ReadFile(file); string(b) != want {
			t.Errorf("the mount shows %q, want %q", b, want)
		}
	}
	n.refuses("no such file", "mount", name, dir+"/none")
	n.refuses("not a directory", "mount", name, n.Dir+"/config.toml")
	n.says("mount", name, dir)
	n.says("mount", name, dir) // again is the same
	seen("seen")
	if err := os.WriteFile(file, nil, 0o644); err == nil {
		t.Error("the image can be written to")
	}
	// Removed, the daemon started anew: the files stay as long as they are shown.
	n.says("rm", id)
	n.Kill()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	seen("seen")
	n.says("unmount", dir)
	seen("")
	n.refuses("no image is mounted", "unmount", dir)
	until(t, "the layer of the removed image is still there", func() bool { return len(n.stored()) == n.settled() })
}

// settled is how many things the store has that belong to the images listed.
func (n *node) settled() int {
	r, err := n.Images.ListImages(n.ctx(), &criapi.ListImagesRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	return 2 * len(r.GetImages()) // a record and the one layer of each
}

// A pull that the kubelet asked for is seen, as is what a command asks for.
func TestImagePulls(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	layer := reg.push("slow", smallImage("slow", "")).String()
	held := make(chan struct{})
	reg.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, layer) {
			<-held
		}
		return false
	})
	name := reg.ref("slow")
	pulled := make(chan error, 1)
	go func() { _, err := n.pull(name); pulled <- err }()
	until(t, "the pull is not shown", func() bool {
		out := n.says("pulls")
		return strings.Contains(out, name) && strings.Contains(out, "fetch")
	})
	lines := make(chan string, 1)
	go func() { lines <- n.says("pull", "--json", name) }()
	time.Sleep(300 * time.Millisecond) // some ticks of progress; nothing depends on it but what is printed below
	close(held)
	if err := <-pulled; err != nil {
		t.Fatal(err)
	}
	out := strings.Split(strings.TrimSpace(<-lines), "\n")
	if last := out[len(out)-1]; !strings.Contains(last, `"images"`) || !strings.Contains(last, name) {
		t.Errorf("the last line is %s", last)
	}
	n.removeImage(name)
	if out := n.says("pulls", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("when all is done, pulls says %s", out)
	}
}

// Credentials: given, of Docker's configuration, of a helper that it names; the wrong ones are said to be.
func TestImagePullCredentials(t *testing.T) {
	n := start(t)
	reg := newRegistry(t)
	reg.push("private", smallImage("private", ""))
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		if user == "me" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	name := reg.ref("private")
	t.Cleanup(func() { n.removeImage(name) })
	home := t.TempDir()
	helper := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = get ] && read host; [ \"$host\" = %s ] && echo '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n", reg.host())
	if err := os.WriteFile(filepath.Join(home, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	pull := func(config string, args ...string) (string, error) {
		if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, err := n.command([]string{"DOCKER_CONFIG=" + home, "PATH=" + home + ":" + os.Getenv("PATH")}, append(append([]string{"pull"}, args...), name)...)
		n.removeImage(name)
		return errs, err
	}
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	for _, c := range []struct {
		name, config string
		args         []string
		ok           bool
	}{
		{"none", `{}`, nil, false},
		{"given", `{}`, []string{"--creds", "me:secret"}, true},
		{"given, wrong", `{}`, []string{"--creds", "me:wrong"}, false},
		{"configuration", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host(), auth), nil, true},
		{"configuration of another host", fmt.Sprintf(`{"auths":{"h.invalid":{"auth":%q}}}`, auth), nil, false},
		{"helper", fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, reg.host()), nil, true},
		{"helper for all", `{"credsStore":"test"}`, nil, true},
	} {
		errs, err := pull(c.config, c.args...)
		if (err == nil) != c.ok || (!c.ok && !strings.Contains(errs, "not authorized")) {
			t.Errorf("%s: %v\n%s", c.name, err, errs)
		}
		if strings.Contains(errs, "secret") {
			t.Errorf("%s: the error has the password: %s", c.name, errs)
		}
	}
}

func TestImageCommandsWithoutDaemon(t *testing.T) {
	n := images(t, "api-alone")
	reg := newRegistry(t)
	layer := reg.push("alone", smallImage("alone", ""))
	name := reg.ref("alone")
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	id := strings.Fields(n.says("pull", name))[0]
	n.refuses("running daemon", "rm", id)
	n.refuses("running daemon", "pulls")
	n.refuses("running daemon", "mount", id, "/mnt")
	damage(t, n, "alone")
	out, errs, err := n.command(nil, "verify", id)
	if err == nil || !strings.Contains(out+errs, "have changed") || !strings.Contains(out, id+" has it and is set aside") {
		t.Errorf("verify of a changed layer: %v\n%s%s", err, out, errs)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	n.refuses("not found", "inspect", id)
	n.says("pull", name)
	if n.says("verify", name); reg.count("GET "+layer.String()) != 2 {
		t.Errorf("the layer was fetched %d times, want anew", reg.count("GET "+layer.String()))
	}
}

// damage changes a byte of the file that has this content.
func damage(t *testing.T, n *node, content string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.State, "images/l/*/f/file"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, _ := os.ReadFile(f); string(b) == content {
			if err := os.WriteFile(f, []byte(strings.ToUpper(content)), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no layer has %q", content)
}
