package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/cri-mini/cri-mini/oci"
)

// emptyLayer is the bottom of every image volume: overlayfs refuses a single layer where there is no upper directory.
func (m *Manager) emptyLayer() string { return filepath.Join(m.cfg.StateDir, "empty") }

// lendVolumes looks up the images that mounts name, and lends them to the container.
func (m *Manager) lendVolumes(c *Container) (map[int]oci.Volume, error) {
	volumes := map[int]oci.Volume{}
	c.Volumes = map[int]imageRecord{}
	for i, mnt := range c.Config.GetMounts() {
		ref := mnt.GetImage().GetImage()
		if ref == "" {
			continue
		}
		if err := oci.CheckImageVolume(i, mnt); err != nil {
			return nil, invalid(err)
		}
		img, ok := m.cfg.Images.Resolve(ref)
		if !ok {
			return nil, volumeError(i, "image", fmt.Errorf("%q: %w on this node; pull it first", ref, ErrNotFound))
		}
		c.Volumes[i] = imageRecord{ID: img.ID, Ref: img.Ref}
		layers, err := m.cfg.Images.Lend(img.ID, c.ID, mnt.GetImageSubPath())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotDirectory) {
			return nil, invalid(volumeError(i, "image_sub_path", fmt.Errorf("image %s: %w", ref, err)))
		}
		if err != nil {
			return nil, volumeError(i, "image", err)
		}
		volumes[i] = oci.Volume{Layers: append(layers, m.emptyLayer())}
	}
	return volumes, nil
}

// volumeError carries the name by which the kubelet knows the failure of an image volume.
func volumeError(mount int, field string, err error) error {
	return fmt.Errorf("%w: container config: mounts[%d].%s: %w", crierrors.ErrImageVolumeMountFailed, mount, field, err)
}

// returnVolumes gives back what a creation that failed was lent.
func (m *Manager) returnVolumes(c *Container) error {
	var errs []error
	for _, img := range c.Volumes {
		errs = append(errs, m.cfg.Images.Return(img.ID, c.ID))
	}
	return errors.Join(errs...)
}

// images are the ids of all images that the container uses, its own first.
func (c *Container) images() []string {
	ids := []string{c.Image.ID}
	for _, img := range c.Volumes {
		if !slices.Contains(ids, img.ID) {
			ids = append(ids, img.ID)
		}
	}
	return ids
}

// mounts are those of the config; each image among them with the digest that its name meant.
func (c *Container) mounts() []*criapi.Mount {
	list := slices.Clone(c.Config.GetMounts())
	for i, img := range c.Volumes {
		list[i] = proto.Clone(list[i]).(*criapi.Mount)
		list[i].Image.ImageRef = img.Ref
	}
	return list
}
