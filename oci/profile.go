package oci

import (
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkProfile checks the shape of a seccomp or AppArmor field.
func checkProfile(config, name string, p *criapi.SecurityProfile) error {
	field := scField + name
	bad := func(f, why string) error { return &InvalidError{Config: config, Field: f, Why: why} }
	switch p.GetProfileType() {
	case criapi.SecurityProfile_RuntimeDefault, criapi.SecurityProfile_Unconfined:
		if p.GetLocalhostRef() != "" {
			return bad(field+".localhost_ref", "is set, but profile_type is "+p.GetProfileType().String())
		}
	case criapi.SecurityProfile_Localhost:
		if p.GetLocalhostRef() == "" {
			return bad(field+".localhost_ref", "is empty, but profile_type is Localhost")
		}
	default:
		return bad(field+".profile_type", "unknown type "+p.GetProfileType().String())
	}
	return nil
}

// parseProfile reads the deprecated string form of a profile: "runtime/default",
// "unconfined" or "localhost/NAME". "" is no profile at all.
func parseProfile(config, field, s string) (*criapi.SecurityProfile, error) {
	ref, local := strings.CutPrefix(s, "localhost/")
	switch {
	case s == "":
		return nil, nil
	case s == "runtime/default", s == "docker/default":
		return &criapi.SecurityProfile{}, nil
	case s == "unconfined":
		return &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Unconfined}, nil
	case local && ref != "":
		return &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: ref}, nil
	}
	return nil, &InvalidError{Config: config, Field: field, Why: quote(s) + ` is none of "runtime/default", "unconfined", "localhost/NAME"`}
}

// chosenProfile returns the field where it is set, else the deprecated string.
func chosenProfile(config, name string, p *criapi.SecurityProfile, oldName, old string) (*criapi.SecurityProfile, error) {
	if p == nil {
		return parseProfile(config, scField+oldName, old)
	}
	return p, checkProfile(config, name, p)
}
