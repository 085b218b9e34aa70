package registry

import (
	"errors"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestParse(t *testing.T) {
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for ref, want := range map[string]string{
		"busybox":                    "docker.io/library/busybox:latest",
		"busybox:1.29":               "docker.io/library/busybox:1.29",
		"user/app":                   "docker.io/user/app:latest",
		"localhost/app":              "localhost/app:latest",
		"127.0.0.1:5000/a/b:c":       "127.0.0.1:5000/a/b:c",
		"registry.k8s.io/pause@" + d: "registry.k8s.io/pause@" + d,
		"pause:3.9@" + d:             "docker.io/library/pause@" + d,
		"[::1]:5000/x":               "[::1]:5000/x:latest",
	} {
		named, err := Parse(ref)
		if err != nil || named.String() != want {
			t.Errorf("Parse(%q) = %v, %v; want %s", ref, named, err, want)
		}
	}
	for _, ref := range []string{"", "UPPER", "a b", "x:", "x@sha256:00", "../x", "http://x/y", d, d[7:]} {
		if named, err := Parse(ref); !errors.Is(err, ErrInvalidReference) {
			t.Errorf("Parse(%q) = %v, %v; want ErrInvalidReference", ref, named, err)
		}
	}
}

func TestLogin(t *testing.T) {
	tests := []struct {
		name string
		auth *criapi.AuthConfig
		host string
		want [2]string
	}{
		{"none", nil, "h", [2]string{}},
		{"password", &criapi.AuthConfig{Username: "u", Password: "p", IdentityToken: "i"}, "h", [2]string{"u", "p"}},
		{"identity token", &criapi.AuthConfig{IdentityToken: "i"}, "h", [2]string{"", "i"}},
		{"auth with a colon in the password and NULs after", &criapi.AuthConfig{Auth: "dTpwOnEAAA=="}, "h", [2]string{"u", "p:q"}},
		{"hub by its old name", &criapi.AuthConfig{Username: "u", Password: "p", ServerAddress: "https://index.docker.io/v1/"}, "registry-1.docker.io", [2]string{"u", "p"}},
		{"server as host and path", &criapi.AuthConfig{Username: "u", Password: "p", ServerAddress: "h:5000/repo"}, "h:5000", [2]string{"u", "p"}},
		{"another server", &criapi.AuthConfig{Username: "u", Password: "p", ServerAddress: "h"}, "h.evil", [2]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := newLogin(tt.auth)
			if err != nil {
				t.Fatal(err)
			}
			user, secret, _ := l.credentials(tt.host)
			if got := [2]string{user, secret}; got != tt.want {
				t.Errorf("credentials = %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("busybox:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	f.Fuzz(func(t *testing.T, ref string) {
		named, err := Parse(ref)
		if err != nil {
			return
		}
		again, err := Parse(named.String())
		if err != nil || again.String() != named.String() {
			t.Errorf("Parse(%q) = %q, and of that %v, %v", ref, named, again, err)
		}
	})
}
