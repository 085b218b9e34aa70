package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cri-mini/cri-mini/image"
	"github.com/cri-mini/cri-mini/image/registry"
)

// imageCommand is `cri-mini image load`.
func imageCommand(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "load" {
		return errors.New("image: the one command is load: cri-mini image load [--config FILE] FILE")
	}
	c, rest, err := parse("image load", args[1:], 1)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errors.New("image load: give one FILE, an OCI archive")
	}
	state, err := hold("state_dir", c.StateDir)
	if err != nil {
		return err
	}
	defer state.release()
	store, err := image.Open(ctx, image.Config{Root: filepath.Join(c.StateDir, "images"), Registry: registry.Config{ConfigDir: c.Registry.ConfigDir}, Logger: newLogger(c)})
	if err != nil {
		return err
	}
	imgs, err := store.LoadPath(ctx, rest[0], image.LoadOptions{})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	for _, img := range imgs {
		fmt.Println(img.ID, strings.Join(img.Tags, " "))
	}
	return store.Close()
}
