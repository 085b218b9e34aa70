package main

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	dockerconfig "github.com/docker/cli/cli/config"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-mini/cri-mini/image"
)

// hubKey is the name by which Docker's configuration knows Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// credentials are those given, else what Docker's configuration (DOCKER_CONFIG, ~/.docker) has of the image's
// registry, by itself or through a credential helper. Nil: none.
func credentials(ref, given string) (*criapi.AuthConfig, error) {
	if given != "" {
		user, password, ok := strings.Cut(given, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("--creds %q: it is USER:PASSWORD", given)
		}
		return &criapi.AuthConfig{Username: user, Password: password}, nil
	}
	name, err := image.Name(ref)
	if err != nil {
		return nil, err
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	key := reference.Domain(named)
	if key == "docker.io" {
		key = hubKey
	}
	file, err := dockerconfig.Load("")
	if err != nil {
		return nil, fmt.Errorf("read Docker's configuration: %w", err)
	}
	auth, err := file.GetAuthConfig(key)
	if err != nil {
		return nil, fmt.Errorf("ask Docker's credential helper for %s: %w", key, err)
	}
	if auth.Username == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return nil, nil
	}
	return &criapi.AuthConfig{Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}, nil
}
