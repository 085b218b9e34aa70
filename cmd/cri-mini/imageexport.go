package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-mini/cri-mini/admin"
	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/oci"
)

// exported is what export prints: mini-runc makes a config.json of it.
type exported struct {
	ID     string            `json:"id"`
	Tags   []string          `json:"tags,omitempty"`
	Config ispec.ImageConfig `json:"config"`
	User   specs.User        `json:"user"` // Config.User, looked up in the image
}

// exportImage writes the files of an image to a directory. The image is one of the store, which gives an archive of it,
// or an archive or a layout at a path; it is unpacked in a store of its own beside the directory.
func exportImage(ctx context.Context, c *admin.Client, _ imageFlags, args []string) (err error) {
	source, dir := args[0], args[1]
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".cri-mini-export-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if _, statErr := os.Stat(source); statErr != nil {
		archive := filepath.Join(tmp, "image.tar")
		if err := saveImages(ctx, c, imageFlags{output: archive}, []string{source}); err != nil {
			return fmt.Errorf("%s is neither a file here nor an image of the store: %w", source, err)
		}
		source = archive
	}
	store, err := image.Open(ctx, image.Config{Root: filepath.Join(tmp, "store"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	images, err := store.LoadPath(ctx, source, image.LoadOptions{})
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%s holds %d images: load it (cri-mini image load) and name one", args[0], len(images))
	}
	img := images[0]
	user, err := oci.ImageUser(img.Config.Config.User, img.Passwd, img.Group)
	if err != nil {
		return err
	}
	if err := store.Export(ctx, img.ID, dir); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(exported{ID: img.ID, Tags: img.Tags, Config: img.Config.Config, User: user})
}
