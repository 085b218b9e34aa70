package pull

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/crypto/bcrypt"
)

// quiet is for servers whose clients break off the handshake.
var quiet = log.New(io.Discard, "", 0)

// node is a configuration and a state directory of one test.
type node struct {
	dir string
	env []string
}

func newNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: layers have owners")
	}
	n := &node{dir: t.TempDir()}
	config := fmt.Sprintf("run_dir = %q\nstate_dir = %q\n[registry]\nconfig_dir = %q\nstall_timeout = \"5s\"\n", filepath.Join(n.dir, "run"), filepath.Join(n.dir, "state"), filepath.Join(n.dir, "certs.d"))
	if err := os.WriteFile(filepath.Join(n.dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// hosts writes certs.d/HOST/hosts.toml.
func (n *node) hosts(t *testing.T, host, text string) {
	t.Helper()
	dir := filepath.Join(n.dir, "certs.d", host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pull runs cri-mini image pull and gives what it said.
func (n *node) pull(host string, args ...string) (string, error) {
	args = append([]string{"image", "pull", "--config", filepath.Join(n.dir, "config.toml")}, append(args, host+"/"+repository+":1")...)
	cmd := exec.Command("../../../bin/cri-mini", args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "DOCKER_CONFIG=" + n.dir}, n.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (n *node) pulls(t *testing.T, host string, args ...string) {
	t.Helper()
	if out, err := n.pull(host, args...); err != nil || !strings.Contains(out, "sha256:") {
		t.Errorf("pull from %s: %v\n%s", host, err, out)
	}
}

func (n *node) refuses(t *testing.T, host, words string, args ...string) {
	t.Helper()
	if out, err := n.pull(host, args...); err == nil || !strings.Contains(out, words) {
		t.Errorf("pull from %s: %v, said %q; want %q", host, err, out, words)
	}
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	host := ca.serveTLS(t, registry(t, nil), false)
	n := newNode(t)
	for _, c := range []struct{ name, ca, says string }{
		{"no ca", "", "unknown authority"},
		{"another ca", fmt.Sprintf("ca = %q\n", other.file), "unknown authority"},
		{"a ca that is not there", "ca = \"/nonexistent/ca.pem\"\n", "/nonexistent/ca.pem"},
	} {
		n.hosts(t, "registry.invalid", fmt.Sprintf("server = \"https://%s\"\n%s", host, c.ca))
		n.refuses(t, "registry.invalid", c.says)
	}
	n.hosts(t, "registry.invalid", fmt.Sprintf("server = \"https://%s\"\nca = %q\n", host, ca.file))
	n.pulls(t, "registry.invalid")
	n = newNode(t)
	n.hosts(t, "registry.invalid", fmt.Sprintf("server = \"https://%s\"\nskip_verify = true\n", host))
	n.pulls(t, "registry.invalid")
	newNode(t).pulls(t, host) // on loopback TLS is tried, and whose certificate it is does not matter, as with containerd
}

func TestClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	host := ca.serveTLS(t, registry(t, nil), true)
	n := newNode(t)
	n.hosts(t, host, fmt.Sprintf("[host.\"https://%s\"]\nca = %q\n", host, ca.file))
	n.refuses(t, host, "certificate required")
	cert, key := ca.issue(t)
	n.hosts(t, host, fmt.Sprintf("[host.\"https://%s\"]\nca = %q\nclient = [[%q, %q]]\n", host, ca.file, cert, key))
	n.pulls(t, host)
}

func TestBasic(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte("me:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	host := ca.serveTLS(t, registry(t, configuration.Auth{"htpasswd": {"realm": "test", "path": file}}), false)
	n := newNode(t)
	n.hosts(t, host, fmt.Sprintf("[host.\"https://%s\"]\nca = %q\n", host, ca.file))
	n.refuses(t, host, "not authorized")
	n.refuses(t, host, "not authorized", "--creds", "me:wrong")
	n.pulls(t, host, "--creds", "me:secret")
}

// tokens is a token server (distribution's docs/spec/auth/token): it signs what a user asks for who knows the password,
// and for anybody where open is set.
func tokens(t *testing.T, ca *authority, open bool) http.Handler {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: ca.key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("x5c", [][]byte{ca.cert.Raw}))
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if err := r.ParseForm(); err == nil && r.Method == http.MethodPost {
			user, password = r.PostForm.Get("username"), r.PostForm.Get("password")
		}
		if !open && (user != "me" || password != "secret") {
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}`, http.StatusUnauthorized)
			return
		}
		claims := map[string]any{
			"iss": "test issuer", "aud": "test service", "sub": user, "exp": time.Now().Add(time.Minute).Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Unix(), "jti": "1",
			"access": []map[string]any{{"type": "repository", "name": repository, "actions": []string{"pull"}}},
		}
		token, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 60})
	})
}

func TestToken(t *testing.T) {
	ca := newAuthority(t)
	for _, open := range []bool{false, true} {
		realm := "http://" + serve(t, tokens(t, ca, open)) + "/token"
		host := serve(t, registry(t, configuration.Auth{"token": {"realm": realm, "issuer": "test issuer", "service": "test service", "rootcertbundle": ca.file}}))
		if open {
			newNode(t).pulls(t, host)
			continue
		}
		n := newNode(t)
		n.refuses(t, host, "not authorized")
		n.refuses(t, host, "not authorized", "--creds", "me:wrong")
		n.pulls(t, host, "--creds", "me:secret")
	}
}

// counting counts the requests that a handler gets.
func counting(n *atomic.Int64, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		h.ServeHTTP(w, r)
	})
}

// Mirrors are asked in the order of the file; one that is down or lacks the image is passed over.
func TestMirrors(t *testing.T) {
	var first, second, upstream atomic.Int64
	lacks := serve(t, counting(&first, http.NotFoundHandler()))
	has := serve(t, counting(&second, registry(t, nil)))
	origin := serve(t, counting(&upstream, registry(t, nil)))
	down := serve(t, http.NotFoundHandler())
	for _, c := range []struct {
		name                    string
		mirrors                 []string
		first, second, upstream bool // is asked
	}{
		{"the first has it", []string{has, lacks}, false, true, false},
		{"the first lacks it", []string{lacks, has}, true, true, false},
		{"the first is down", []string{"127.0.0.1:1", has}, false, true, false},
		{"all are down", []string{"127.0.0.1:1", "127.0.0.1:2"}, false, false, true},
		{"none has it", []string{lacks, down}, true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			first.Store(0)
			second.Store(0)
			upstream.Store(0)
			n := newNode(t)
			text := fmt.Sprintf("server = \"http://%s\"\n", origin)
			for _, m := range c.mirrors {
				text += fmt.Sprintf("[host.\"http://%s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", m)
			}
			n.hosts(t, "registry.invalid", text)
			n.pulls(t, "registry.invalid")
			if got := [3]bool{first.Load() > 0, second.Load() > 0, upstream.Load() > 0}; got != [3]bool{c.first, c.second, c.upstream} {
				t.Errorf("asked: %v", got)
			}
		})
	}
}

// A mirror without "resolve" gives blobs, but is not trusted to say what a tag means.
func TestCapabilities(t *testing.T) {
	var manifests, origins atomic.Int64
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/manifests/1") {
			manifests.Add(1)
		}
		registry(t, nil).ServeHTTP(w, r)
	}))
	origin := serve(t, counting(&origins, registry(t, nil)))
	n := newNode(t)
	n.hosts(t, "registry.invalid", fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n", origin, mirror))
	n.pulls(t, "registry.invalid")
	if manifests.Load() != 0 || origins.Load() == 0 {
		t.Errorf("the mirror was asked %d times for the tag, the registry %d times for anything", manifests.Load(), origins.Load())
	}
}

// Any registry without a directory of its own goes by _default.
func TestDefault(t *testing.T) {
	host := serve(t, registry(t, nil))
	n := newNode(t)
	n.hosts(t, "_default", fmt.Sprintf("[host.\"http://%s\"]\n", host))
	n.pulls(t, "some.registry.invalid")
}

// A mirror below a path of its own, which wants a header.
func TestHeaderAndOverridePath(t *testing.T) {
	target := &url.URL{Scheme: "http", Host: serve(t, registry(t, nil))}
	proxy := httputil.NewSingleHostReverseProxy(target)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, "/mirror/of/all/")
		if !ok || r.Header.Get("X-Team") != "ours" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		r.URL.Path = "/v2/" + rest
		proxy.ServeHTTP(w, r)
	}))
	n := newNode(t)
	text := fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s/mirror/of/all\"]\noverride_path = true\n", host)
	n.hosts(t, "registry.invalid", text)
	n.refuses(t, "registry.invalid", "")
	n.hosts(t, "registry.invalid", text+fmt.Sprintf("[host.\"http://%s/mirror/of/all\".header]\nX-Team = \"ours\"\n", host))
	n.pulls(t, "registry.invalid")
}

// HTTP_PROXY and NO_PROXY, as net/http has them.
func TestProxy(t *testing.T) {
	var proxied atomic.Int64
	target := &url.URL{Scheme: "http", Host: serve(t, registry(t, nil))}
	host := serve(t, counting(&proxied, httputil.NewSingleHostReverseProxy(target)))
	n := newNode(t)
	n.hosts(t, "registry.invalid", "server = \"http://registry.invalid\"\n")
	n.env = []string{"HTTP_PROXY=http://" + host}
	n.pulls(t, "registry.invalid")
	if proxied.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	n.env = append(n.env, "NO_PROXY=registry.invalid")
	n.refuses(t, "registry.invalid", "registry unavailable")
}
