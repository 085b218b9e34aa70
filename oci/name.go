package oci

import (
	"path"
	"strings"
	"unicode"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds on what becomes part of a path. NAME_MAX is 255 bytes; ids leave room
// for the suffixes that files beside them get.
const (
	maxID   = 128
	maxName = 253 // DNS-1123 subdomain, the longest name that Kubernetes allows
	maxPath = 4095
)

// CheckID says whether id may name a pod or a container: it becomes a
// directory, a cgroup and a file name, so it must never climb out of them.
// what is "pod id" or "container id" and begins the error.
func CheckID(what, id string) error {
	bad := func(why string) error { return &InvalidError{Config: what, Field: quote(id), Why: why} }
	switch {
	case id == "":
		return bad("is empty")
	case len(id) > maxID:
		return bad("is longer than 128 bytes")
	case strings.Contains(id, ".."):
		return bad(`contains ".."`)
	case !isAlnum(id[0]):
		return bad("must begin with a letter or a digit")
	}
	for i := range len(id) {
		if c := id[i]; !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			return bad("may hold only letters, digits, '_', '.' and '-'")
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// checkName returns what is wrong with a metadata name, or "". A name goes
// into CNI_ARGS ("K8S_POD_NAME=x;…"), where ';' and '=' would be syntax, and
// into logs, where control characters would be.
func checkName(name string) string {
	if len(name) > maxName {
		return "is longer than 253 bytes"
	}
	bad := func(r rune) bool {
		return r == '/' || r == ';' || r == '=' || unicode.IsSpace(r) || unicode.IsControl(r)
	}
	if strings.ContainsFunc(name, bad) {
		return quote(name) + " holds '/', ';', '=', a space or a control character"
	}
	return ""
}

// checkAbs returns what is wrong with a path that must be absolute, or "".
// ".." is refused rather than cleaned away: with a symbolic link before it, the
// cleaned path is another file.
func checkAbs(p string) string {
	switch {
	case p == "":
		return "is empty"
	case p[0] != '/':
		return quote(p) + " is relative; give an absolute path"
	case len(p) > maxPath:
		return "is longer than 4095 bytes"
	case strings.ContainsRune(p, 0):
		return "contains a NUL byte"
	case hasDotDot(p):
		return quote(p) + ` contains ".."; give the path without it`
	}
	return ""
}

func hasDotDot(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == ".." {
			return true
		}
	}
	return false
}

// LogPath returns where a container's log is to be written: log_path below the
// pod's log_directory. It is "" when either is not set: then nothing is kept.
func LogPath(pod *criapi.PodSandboxConfig, container *criapi.ContainerConfig) (string, error) {
	dir, file := pod.GetLogDirectory(), container.GetLogPath()
	if dir != "" {
		if why := checkAbs(dir); why != "" {
			return "", badPod("log_directory", "%s", why)
		}
	}
	if file == "" {
		return "", nil
	}
	switch {
	case file[0] == '/':
		return "", badContainer("log_path", "%q is absolute; give a path relative to the pod's log_directory", file)
	case hasDotDot(file):
		return "", badContainer("log_path", `%q contains ".."`, file)
	case strings.ContainsRune(file, 0):
		return "", badContainer("log_path", "contains a NUL byte")
	case strings.HasSuffix(file, "/"):
		return "", badContainer("log_path", "%q names a directory", file)
	case len(dir)+len(file)+1 > maxPath:
		return "", badContainer("log_path", "is longer than 4095 bytes")
	}
	if dir == "" {
		return "", nil
	}
	return path.Join(dir, file), nil
}
