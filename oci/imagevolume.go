package oci

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Volume is the image of one mount, looked up on the node.
type Volume struct {
	// Layers are the directories to show, the top first: those of the image, or
	// of one directory in it. overlayfs wants two at least.
	Layers []string `json:"layers"`
}

// CheckImageVolume says what is wrong with mount i as one of an image, before
// the image is looked for. All such mounts are read-only, whatever readonly says.
func CheckImageVolume(i int, m *criapi.Mount) error {
	field := indexed("mounts", i)
	sub := m.GetImageSubPath()
	switch {
	case m.GetHostPath() != "":
		return badVolume(field+".host_path", "is set together with image")
	case strings.HasPrefix(sub, "/"):
		return badVolume(field+".image_sub_path", "%q is absolute; give it from the root of the image", sub)
	case hasDotDot(sub):
		return badVolume(field+".image_sub_path", `%q contains ".."`, sub)
	case strings.ContainsRune(sub, 0), len(sub) > maxPath:
		return badVolume(field+".image_sub_path", "is not a valid path")
	case m.GetPropagation() == criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		return badVolume(field+".propagation", "an image is no mount of the node that something could propagate to")
	}
	return nil
}

// imageVolume is the overlay of an image's layers. Nothing is mounted on the
// node: the file system is made for this container and ends with it. In a user
// namespace its files belong to whom the image says there, as those of the root
// do, whether the mount has mappings or not.
func (b *builder) imageVolume(i int, m *criapi.Mount) (specs.Mount, error) {
	if err := CheckImageVolume(i, m); err != nil {
		return specs.Mount{}, err
	}
	v, ok := b.in.Volumes[i]
	if !ok {
		return specs.Mount{}, badVolume(indexed("mounts", i)+".image", "%q was not looked up", m.GetImage().GetImage())
	}
	options, err := mountOptions(indexed("mounts", i), m)
	if err != nil {
		return specs.Mount{}, err
	}
	var dirs []string
	for _, dir := range v.Layers {
		dirs = append(dirs, escapeLayer.Replace(dir))
	}
	out := specs.Mount{
		Destination: path.Clean(m.GetContainerPath()), Type: "overlay", Source: "overlay",
		Options: append([]string{"ro", "lowerdir=" + strings.Join(dirs, ":")}, options...),
	}
	if b.userns() {
		out.UIDMappings, out.GIDMappings = b.in.PodSpec.Linux.UIDMappings, b.in.PodSpec.Linux.GIDMappings
		out.Options = append(out.Options, "idmap")
	}
	return out, nil
}

// escapeLayer writes a directory the way that overlayfs reads one of lowerdir's
// (Documentation/filesystems/overlayfs.rst).
var escapeLayer = strings.NewReplacer(`\`, `\\`, ":", `\:`)
