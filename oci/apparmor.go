package oci

import (
	"strings"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DefaultAppArmor is the profile that RuntimeDefault means; the daemon loads
// it, see AppArmorProfile.
const DefaultAppArmor = "cri-mini-default"

// apparmor returns the profile to change to at exec, "" for none. Saying
// nothing means the default, as the API has it. On a node without AppArmor only
// a profile by name is refused: it was asked for, and nothing stands in for it.
func (b *builder) apparmor() (string, error) {
	p, err := chosenProfile(containerConfig, "apparmor", b.sc.GetApparmor(), "apparmor_profile", b.sc.GetApparmorProfile())
	if err != nil {
		return "", err
	}
	ref := strings.TrimPrefix(p.GetLocalhostRef(), "localhost/")
	local := p.GetProfileType() == criapi.SecurityProfile_Localhost
	switch {
	case b.privileged:
		return "", nil
	case !b.in.Facts.AppArmor && local:
		return "", badContainer(scField+"apparmor", "profile %q was asked for, but this node has no AppArmor", ref)
	case !b.in.Facts.AppArmor, p.GetProfileType() == criapi.SecurityProfile_Unconfined:
		return "", nil
	case local && (ref == "" || strings.ContainsAny(ref, "\x00\n")):
		return "", badContainer(scField+"apparmor.localhost_ref", "%q is not the name of a profile", ref)
	case local:
		return ref, nil
	}
	return DefaultAppArmor, nil
}

// AsksForAppArmor says whether a config has something to say of a profile: one
// that says nothing gets the default where it can be had.
func AsksForAppArmor(c *criapi.ContainerConfig) bool {
	sc := c.GetLinux().GetSecurityContext()
	return sc.GetApparmor() != nil || sc.GetApparmorProfile() != ""
}
