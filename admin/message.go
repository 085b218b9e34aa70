package admin

import (
	"errors"
	"fmt"
	"net/http"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cri-mini/cri-mini/image"
)

// Image is an image as commands show it.
type Image struct {
	ID       string      `json:"id"`
	Tags     []string    `json:"tags"`
	Digests  []string    `json:"digests"`
	Manifest string      `json:"manifest"` // digest
	Size     uint64      `json:"size"`     // bytes of the unpacked layers, shared ones included
	Pinned   bool        `json:"pinned"`
	Config   ispec.Image `json:"config"`
}

func shown(i *image.Image) *Image {
	return &Image{
		ID: i.ID, Tags: nonNil(i.Tags), Digests: nonNil(i.Digests), Manifest: i.Manifest, Size: i.Size, Pinned: i.Pinned, Config: i.Config,
	}
}

// nonNil makes an empty list [] in JSON, not null.
func nonNil(list []string) []string { return append([]string{}, list...) }

// PullRequest asks for an image of a registry.
type PullRequest struct {
	Ref  string             `json:"ref"`
	Auth *criapi.AuthConfig `json:"auth,omitempty"`
}

// Event is one line of a long answer: exactly one field is set.
type Event struct {
	Progress *image.PullStatus `json:"progress,omitempty"` // of a pull or load, so far
	Layer    *image.Verified   `json:"layer,omitempty"`    // verified
	Images   []*Image          `json:"images,omitempty"`   // the result: the last line
	Error    *Error            `json:"error,omitempty"`    // the last line, too
	Done     bool              `json:"done,omitempty"`     // the last line of a call that has no other result
}

// Error is a failure as the client sees it. Is tells it from others by the sentinels of package image.
type Error struct {
	Kind    string `json:"kind,omitempty"` // "not found", …: see kinds
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Is lets errors.Is find the sentinel across the wire.
func (e *Error) Is(target error) bool {
	for _, k := range kinds {
		if k.name == e.Kind {
			return k.err == target
		}
	}
	return false
}

// kinds are the errors that a client may want to tell apart, with the HTTP status of each.
var kinds = []struct {
	name   string
	err    error
	status int
}{
	{"not found", image.ErrNotFound, http.StatusNotFound},
	{"invalid reference", image.ErrInvalidReference, http.StatusBadRequest},
	{"corrupt", image.ErrCorrupt, http.StatusUnprocessableEntity},
	{"unauthorized", image.ErrUnauthorized, http.StatusForbidden},
	{"registry unavailable", image.ErrUnavailable, http.StatusBadGateway},
	{"platform", image.ErrPlatform, http.StatusConflict},
	{"unsupported", image.ErrUnsupported, http.StatusConflict},
	{"invalid request", errInvalid, http.StatusBadRequest},
}

// errInvalid says that a request is not what the interface takes.
var errInvalid = errors.New("invalid request")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errInvalid, fmt.Sprintf(format, args...))
}

// toError gives an error's words and kind, and the status that goes with it.
func toError(err error) (*Error, int) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return &Error{Kind: k.name, Message: err.Error()}, k.status
		}
	}
	return &Error{Message: err.Error()}, http.StatusInternalServerError
}
