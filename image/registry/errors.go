package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// Sentinels that callers test with errors.Is.
var (
	ErrNotFound         = errors.New("not found")
	ErrUnavailable      = errors.New("registry unavailable")
	ErrUnauthorized     = errors.New("not authorized")
	ErrInvalidReference = errors.New("invalid image reference")
	ErrTooLong          = errors.New("blob is longer than the manifest says")
)

// classify puts the fitting sentinel on an error of the protocol library. The caller's own cancellation is passed on
// as it is: that is no fault of the registry.
func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var hosts *hostsError
	if errors.As(err, &hosts) {
		return hosts
	}
	var stall *stallError
	if errors.As(err, &stall) {
		return fmt.Errorf("%w: %w", ErrUnavailable, stall)
	}
	var busy *busyError
	if errors.As(err, &busy) {
		return fmt.Errorf("%w: %w", ErrUnavailable, busy)
	}
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return classifyStatus(status)
	}
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return fmt.Errorf("%w: the registry refused the credentials, or the repository does not exist", ErrUnauthorized)
	case errdefs.IsNotFound(err):
		return ErrNotFound
	case errdefs.IsFailedPrecondition(err): // what the library calls reading past the descriptor's size
		return ErrTooLong
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, withoutURL(err))
}

func classifyStatus(status remoteerrors.ErrUnexpectedStatus) error {
	text := status.Status
	if words := bodyMessage(status.Body); words != "" {
		text += ": " + words
	}
	switch status.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrUnauthorized, text)
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%w: %s", ErrNotFound, text)
	}
	return fmt.Errorf("%w: the registry answered %s", ErrUnavailable, text)
}

// bodyMessage takes the words out of a distribution-spec error body. They come from the registry: bounded and quoted.
func bodyMessage(body []byte) string {
	var list struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &list) != nil || len(list.Errors) == 0 {
		return ""
	}
	words := strings.TrimSpace(list.Errors[0].Code + " " + list.Errors[0].Message)
	if len(words) > 200 {
		words = words[:200] + "…"
	}
	return fmt.Sprintf("%q", words)
}

// withoutURL drops the URL that net/http puts in its errors: after a redirect it carries a signature that opens the
// blob to whoever reads the log.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
