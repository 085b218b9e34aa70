package registry

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// login is a CRI AuthConfig in the form that the protocol asks for.
type login struct {
	user   string
	secret string // a password, or with an empty user a refresh token
	bearer string // a registry token, sent as it is
	server string // when set, the only host that may see the above
}

// newLogin reads the four forms of AuthConfig. When several are given the order is that of containerd:
// username, identity_token, auth; registry_token goes beside them.
func newLogin(auth *criapi.AuthConfig) (login, error) {
	if auth == nil {
		return login{}, nil
	}
	l := login{bearer: auth.RegistryToken, server: hostOf(auth.ServerAddress)}
	switch {
	case auth.Username != "":
		l.user, l.secret = auth.Username, auth.Password
	case auth.IdentityToken != "":
		l.secret = auth.IdentityToken
	case auth.Auth != "":
		plain, err := base64.StdEncoding.DecodeString(auth.Auth)
		if err != nil {
			return login{}, fmt.Errorf("%w: auth config: auth is not base64", ErrUnauthorized)
		}
		user, pass, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		if !ok {
			return login{}, fmt.Errorf("%w: auth config: auth has no colon between user and password", ErrUnauthorized)
		}
		l.user, l.secret = user, pass
	}
	return l, nil
}

// hostOf takes the host out of a server_address, which kubelet gives as a host, a host with a path or a URL.
func hostOf(server string) string {
	if server == "" {
		return ""
	}
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	return u.Host
}

// allows tells whether host may be given the credentials. Docker Hub goes by three names.
func (l login) allows(host string) bool {
	return l.server == "" || l.server == host || (isHub(l.server) && isHub(host))
}

func isHub(host string) bool {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return true
	}
	return false
}

// credentials has the form that containerd's authorizer calls.
func (l login) credentials(host string) (user, secret string, err error) {
	if !l.allows(host) {
		return "", "", nil
	}
	return l.user, l.secret, nil
}
