package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/cri-mini/cri-mini/image"
)

// PullImage fetches and unpacks an image and answers its id.
func (s *Server) PullImage(ctx context.Context, r *criapi.PullImageRequest) (*criapi.PullImageResponse, error) {
	img, err := s.Images.Pull(ctx, image.PullRequest{Ref: r.GetImage().GetImage(), Auth: r.GetAuth()})
	if err != nil {
		return nil, pullError(ctx, err)
	}
	return &criapi.PullImageResponse{ImageRef: img.ID}, nil
}

// pullError words what kubelet makes a reason of the pod's events out of. Its client keeps a message as it is only if
// the code is Unknown, and image_manager.go then looks for the word at the very beginning.
func pullError(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, image.ErrUnavailable) {
		return status.Errorf(codes.Unknown, "%s: %s", crierrors.ErrRegistryUnavailable, err)
	}
	return err
}

// ImageStatus tells about an image; OK without one when it is not here.
func (s *Server) ImageStatus(_ context.Context, r *criapi.ImageStatusRequest) (*criapi.ImageStatusResponse, error) {
	if r.GetImage().GetImage() == "" {
		return nil, fmt.Errorf("image.image: empty: %w", image.ErrInvalidReference)
	}
	img, ok := s.Images.Get(r.GetImage().GetImage())
	if !ok {
		return &criapi.ImageStatusResponse{}, nil
	}
	resp := &criapi.ImageStatusResponse{Image: criImage(img)}
	if r.GetVerbose() {
		b, err := json.Marshal(map[string]any{"imageSpec": img.Config})
		if err != nil {
			return nil, fmt.Errorf("encode image config: %w", err)
		}
		resp.Info = map[string]string{"info": string(b)}
	}
	return resp, nil
}

// ListImages lists images.
func (s *Server) ListImages(_ context.Context, r *criapi.ListImagesRequest) (*criapi.ListImagesResponse, error) {
	return &criapi.ListImagesResponse{Images: s.images(r.GetFilter())}, nil
}

// images lists those that a filter matches.
func (s *Server) images(f *criapi.ImageFilter) []*criapi.Image {
	list := []*criapi.Image{}
	if want := f.GetImage().GetImage(); want != "" {
		if img, ok := s.Images.Get(want); ok {
			list = append(list, criImage(img))
		}
		return list
	}
	for _, img := range s.Images.List() {
		list = append(list, criImage(img))
	}
	return list
}

// RemoveImage removes an image with all its names; success for an unknown one.
func (s *Server) RemoveImage(ctx context.Context, r *criapi.RemoveImageRequest) (*criapi.RemoveImageResponse, error) {
	if r.GetImage().GetImage() == "" {
		return nil, fmt.Errorf("image.image: empty: %w", image.ErrInvalidReference)
	}
	return &criapi.RemoveImageResponse{}, s.Images.Remove(ctx, r.GetImage().GetImage())
}

// ImageFsInfo tells what images and writable layers use.
func (s *Server) ImageFsInfo(context.Context, *criapi.ImageFsInfoRequest) (*criapi.ImageFsInfoResponse, error) {
	fs := s.Images.FsInfo()
	images := &criapi.FilesystemUsage{
		Timestamp: time.Now().UnixNano(), FsId: &criapi.FilesystemIdentifier{Mountpoint: fs.Mountpoint},
		UsedBytes: &criapi.UInt64Value{Value: fs.UsedBytes}, InodesUsed: &criapi.UInt64Value{Value: fs.InodesUsed},
	}
	containers, err := fsUsage(s.StateDir)
	if err != nil {
		return nil, err
	}
	return &criapi.ImageFsInfoResponse{ImageFilesystems: []*criapi.FilesystemUsage{images}, ContainerFilesystems: []*criapi.FilesystemUsage{containers}}, nil
}

func fsUsage(dir string) (*criapi.FilesystemUsage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, fmt.Errorf("stat file system of %s: %w", dir, err)
	}
	return &criapi.FilesystemUsage{
		Timestamp: time.Now().UnixNano(), FsId: &criapi.FilesystemIdentifier{Mountpoint: dir},
		UsedBytes: &criapi.UInt64Value{Value: (st.Blocks - st.Bfree) * uint64(st.Bsize)}, InodesUsed: &criapi.UInt64Value{Value: st.Files - st.Ffree},
	}, nil
}

// criImage turns an image into CRI's words. The user is a number or a name; without one it is root.
func criImage(img *image.Image) *criapi.Image {
	out := &criapi.Image{Id: img.ID, RepoTags: img.Tags, RepoDigests: img.Digests, Size: img.Size, Pinned: img.Pinned, Spec: &criapi.ImageSpec{Image: img.ID}}
	user, _, _ := strings.Cut(img.Config.Config.User, ":")
	if user == "" {
		return out
	}
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		out.Uid = &criapi.Int64Value{Value: uid}
	} else {
		out.Username = user
	}
	return out
}
